"""A sample of the weights that `tests/fuzz/fuzz_weights.py` reads; 5,000 of each format before a release."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz" / "fuzz_weights.py"


@pytest.mark.slow
def test_weights_that_are_almost_right(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, SCRIPT, "60", "--seed", "1", "--keep", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 faults") == 5
