"""`python -m jaxai.cli`, the same as `jaxai`."""

import sys

from . import main

sys.exit(main())
