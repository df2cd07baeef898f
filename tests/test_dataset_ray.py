"""Ray's actors: where Ray is installed, they make the store of one process, whatever dies meanwhile."""

import contextlib
import importlib.util
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import time

import data_sets
import pytest
from test_dataset_workers import PLAN, command, finished, place, whole  # noqa: F401

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray (extra `ray`)"),
]


def test_actors_make_the_store_of_one_process(place, whole):  # noqa: F811
    finished(place, "plan", "photos", "--out", "actors", *PLAN, "saliency,smooth_grad")
    process = command(place, "run", "actors", "--engine", "ray", "--workers", 2, start_new_session=True)
    leases, killed = place / "actors" / "leases", None
    # An actor is killed while it explains.
    while killed is None:
        assert process.poll() is None, process.communicate()
        for path in leases.glob("0*.json") if leases.exists() else ():
            try:
                killed = json.loads(path.read_text())["process"]
            except (OSError, ValueError):
                continue
        time.sleep(0.01)
    os.kill(killed, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "40 of 40 images in 5 of 5 shards" in out
    assert data_sets.files(place / "actors") == whole
    assert not list(leases.glob("0*.json"))


def test_what_an_actor_refuses_is_one_line(place, tmp_path):  # noqa: F811
    finished(place, "plan", "photos", "--out", tmp_path / "store", *PLAN, "saliency")
    (tmp_path / "empty").mkdir()
    process = command(place, "run", tmp_path / "store", "--engine", "ray", "--root", tmp_path / "empty")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("jaxai: error: none of the images of shard ")


@contextlib.contextmanager
def head(port, access):
    """A cluster of this machine, whose processes are killed at the end."""
    ray = pathlib.Path(sys.executable).with_name("ray")
    call = [ray, "start", "--head", "--block", f"--port={port}", "--include-dashboard=false", "--num-cpus=2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(call, env={**os.environ, **access}, start_new_session=True, **quiet)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_whose_head_dies_and_comes_back(place, whole):  # noqa: F811
    finished(place, "plan", "photos", "--out", "head", *PLAN, "saliency,smooth_grad")
    port = 20000 + os.getpid() % 9000
    words = ("run", "head", "--engine", "ray", "--address", f"127.0.0.1:{port}")
    # Whoever connects to a cluster needs its token.
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with head(port, access):
        process = command(place, *words, environment=access)
        while not list((place / "head").glob("done/*.json")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    _, err = process.communicate(timeout=200)
    # It may have finished just before.
    assert process.returncode in (0, 2) and "Traceback" not in err, err
    for lease in (place / "head" / "leases").glob("*.json"):
        # As if its time had run out.
        os.utime(lease, (0, 0))
    with head(port + 1, access):
        out = finished(place, *words[:-1], f"127.0.0.1:{port + 1}", environment=access)
    assert "40 of 40 images in 5 of 5 shards" in out
    assert data_sets.files(place / "head") == whole


def test_a_cluster_that_is_not_there_is_one_line(place, tmp_path):  # noqa: F811
    finished(place, "plan", "photos", "--out", tmp_path / "store", *PLAN, "saliency")
    process = command(place, "run", tmp_path / "store", "--engine", "ray", "--address", "127.0.0.1:1")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2 and "Traceback" not in err
    assert "Ray's cluster at 127.0.0.1:1 cannot be reached" in err.splitlines()[-1]
