"""A sample of the photos that `tests/fuzz/fuzz_photos.py` reads; 5,000 of them are read before a release."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz" / "fuzz_photos.py"


@pytest.mark.slow
def test_almost_right_photos():
    done = subprocess.run([sys.executable, SCRIPT, "800"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "; 0 faults" in done.stdout and "'compared': " in done.stdout
