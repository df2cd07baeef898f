"""Ctrl-C in the middle of long runs of the command: soon over, and what was finished is on disk."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# What runs, how the output begins that says that the long part runs, and the files that must be there.
RUNS = {
    "rise": (
        ["explain", "cat", "--method", "saliency,rise", "-o", "rise.num_masks=100000"],
        "saliency ",
        ["out/saliency.png", "out/maps.npz"],
    ),
    "lime": (
        ["explain", "cat", "--method", "saliency,lime", "-o", "lime.num_samples=50000"],
        "saliency ",
        ["out/saliency.png", "out/maps.npz"],
    ),
    "visualize": (
        [
            "visualize",
            "vgg16_features",
            "conv1_2:0-63",
            "--size",
            "32",
            "--steps",
            "512",
            "--batch-size",
            "1",
        ],
        None,
        [],
    ),
    "dream": (["dream", "cat", "--layer", "conv4_3", "--steps", "5000"], None, []),
}

# A process that is started in the background may ignore the signal.
COMMAND = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " runpy.run_module('jaxai', run_name='__main__', alter_sys=True)"
)


def interrupted(words, started, folder, wait):
    """Run the command and press Ctrl-C some time later: its code, its errors, the seconds until it ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while started is not None and not (line := process.stdout.readline()).startswith(started):
            assert line, process.stderr.read()
        time.sleep(wait)
        assert process.poll() is None, process.stderr.read()
        begin = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        code = process.wait(timeout=60)
        return code, process.stderr.read().splitlines(), time.monotonic() - begin
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", RUNS)
def test_ctrl_c_ends_a_long_run(name, tmp_path):
    words, started, files = RUNS[name]
    # Without a line that says so, the network is loaded and something compiled or running by then.
    wait = random.Random(name).uniform(1, 4) + (8 if started is None else 0)
    code, errors, seconds = interrupted(words, started, tmp_path, wait)
    assert code == 130 and errors[-1] == "jaxai: interrupted", errors
    # Two seconds on an idle machine.
    assert seconds < 10
    for file in files:
        assert (tmp_path / file).stat().st_size > 1000
    if files:
        found = np.load(tmp_path / "out/maps.npz")
        assert "saliency" in found and name not in found
        record = json.loads((tmp_path / "out/explanation.json").read_text("utf-8"))
        assert list(record["methods"]) == ["saliency"]
    left = [path.name for path in tmp_path.rglob("*.part")]
    assert left == []
