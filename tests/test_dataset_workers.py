"""Worker processes that are killed, stopped and started; other numbers of devices; the command."""

import os
import random
import signal
import subprocess
import sys
import time

import data_sets
import numpy as np
import pytest

import jaxai

MODEL = "data_set_model:network"
CODE = """
import jax, jaxai, jax.numpy as jnp, numpy as np

def network():
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 5)), "float32")
    weights = jnp.asarray(rng.normal(size=(5, 7)), "float32")

    def features(kernel, x):
        return jax.nn.relu(jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))

    partial = jax.tree_util.Partial
    return jaxai.chain({"features": partial(features, kernel), "logits": partial(head, weights)})

def head(weights, x):
    return x.mean((1, 2)) @ weights
"""
PLAN = ("--model", MODEL, "--input-size", 16, "--batch-size", 8, "--shard-size", 8, "--method")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a network that has a name and forty photos, one of them broken."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data_set_model.py").write_text(CODE)
    data_sets.photos(folder / "photos", 40, broken=(7,))
    return folder


def command(place, *words, **options):
    environment = {**os.environ, **options.pop("environment", {})}
    call = [sys.executable, "-m", "jaxai", "dataset", *map(str, words)]
    return subprocess.Popen(
        call, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finished(place, *words, **options):
    process = command(place, *words, **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(place):
    """A store that one process filled without being disturbed."""
    finished(place, "plan", "photos", "--out", "whole", *PLAN, "saliency,smooth_grad")
    finished(place, "run", "whole")
    return data_sets.files(place / "whole")


@pytest.mark.slow
def test_workers_that_are_killed_at_random_moments_leave_the_same_store(place, whole):
    finished(place, "plan", "photos", "--out", "killed", *PLAN, "saliency,smooth_grad")
    moments = random.Random(0)
    for _ in range(6):
        process = command(place, "run", "killed", start_new_session=True)
        time.sleep(moments.uniform(2, 8))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for lease in (place / "killed" / "leases").glob("*.json"):
            # As if its time had run out.
            os.utime(lease, (0, 0))
    out = finished(place, "run", "killed")
    assert "40 of 40 images in 5 of 5 shards" in out and "1 images could not be explained" in out
    assert data_sets.files(place / "killed") == whole
    assert not [path for path in (place / "killed").rglob("*") if path.name.endswith(".part")]


@pytest.mark.slow
def test_two_workers_make_the_store_of_one(place, whole):
    finished(place, "plan", "photos", "--out", "two", *PLAN, "saliency,smooth_grad")
    out = finished(place, "run", "two", "--workers", 2)
    assert "40 of 40 images" in out
    assert data_sets.files(place / "two") == whole


@pytest.mark.slow
def test_a_worker_that_was_stopped_and_goes_on_harms_nothing(place, whole):
    finished(place, "plan", "photos", "--out", "stopped", *PLAN, "saliency,smooth_grad")
    process = command(place, "run", "stopped")
    leases = place / "stopped" / "leases"
    while not list(leases.glob("0*.json")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    for lease in leases.glob("0*.json"):
        os.utime(lease, (0, 0))
    finished(place, "run", "stopped")
    assert data_sets.files(place / "stopped") == whole
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert data_sets.files(place / "stopped") == whole


@pytest.mark.slow
def test_what_a_worker_process_refuses_is_one_line(place, tmp_path):
    finished(place, "plan", "photos", "--out", tmp_path / "store", *PLAN, "saliency")
    (tmp_path / "empty").mkdir()
    process = command(place, "run", tmp_path / "store", "--workers", 2, "--root", tmp_path / "empty")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err
    # Before it there may be lines of progress.
    assert err.splitlines()[-1].startswith("jaxai: error: none of the images of shard ")


@pytest.mark.slow
def test_eight_devices_find_what_one_finds(place, whole):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    finished(place, "plan", "photos", "--out", "eight", *PLAN, "saliency,smooth_grad", environment=flags)
    finished(place, "run", "eight", environment=flags)
    one, eight = (jaxai.dataset.open(place / name) for name in ("whole", "eight"))
    assert one.plan.hash == eight.plan.hash
    for name in ("saliency", "smooth_grad"):
        # Half precision of each map's largest value.
        largest = np.nanmax(np.abs(one.maps[name][:]))
        np.testing.assert_allclose(eight.maps[name][:], one.maps[name][:], atol=1e-3 * largest)
    scores = [np.array([s[0] for s in store.table()["score"].to_pylist() if s]) for store in (one, eight)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


@pytest.mark.slow
def test_ctrl_c_keeps_finished_shards(place, whole):
    long = ("-o", "smooth_grad.num_samples=3000")
    finished(place, "plan", "photos", "--out", "interrupted", *PLAN, "smooth_grad", *long)
    process = command(place, "run", "interrupted")
    done = place / "interrupted" / "done"
    while not done.exists() or not list(done.glob("*.json")):
        time.sleep(0.02)
        assert process.poll() is None
    before = data_sets.files(place / "interrupted")
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 2 and process.returncode == 130
    assert "go on with: jaxai dataset run interrupted" in err and "Traceback" not in err
    assert jaxai.dataset.open(place / "interrupted").verify() == []
    assert "40 of 40 images" in finished(place, "run", "interrupted")
    assert before.items() <= data_sets.files(place / "interrupted").items()


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))


def test_the_command_plans_runs_and_shows(run, here, place, tmp_path):
    store = tmp_path / "store"
    code, out, err = run("dataset", "plan", "photos", "--out", store, *PLAN, "saliency")
    assert code == 0 and out == [f"40 images in 5 shards; go on with: jaxai dataset run {store}"], err
    assert run("dataset", "status", store)[1] == ["0 of 40 images in 0 of 5 shards"]
    code, out, err = run("dataset", "run", store, "--worker", "1/2")
    assert code == 0 and out[0] == "40 of 40 images in 5 of 5 shards", err
    assert out[1] == "1 images could not be explained (column `error`)" and "of the time waiting" in out[2]
    assert run("dataset", "verify", store)[1] == ["all finished shards are intact"]
    code, out, _ = run("dataset", "open", store, "--rows", 2, "--uncertain")
    assert code == 0 and len(out) == 2 and '"classes": ["class ' in out[0]
    (store / "rows/00002.parquet").write_bytes(b"cut")
    code, _, err = run("dataset", "verify", store)
    assert code == 2 and err == ["jaxai: error: damaged shards: 2; --repair has them explained again"]
    assert run("dataset", "verify", store, "--repair")[1] == ["1 shards will be explained again"]
    assert run("dataset", "run", store)[1][0] == "40 of 40 images in 5 of 5 shards"


@pytest.mark.parametrize(
    "words, error",
    [
        (("run", "gone"), "gone is not a store: it has no plan.json"),
        (("status", "gone"), "gone is not a store: it has no plan.json"),
        (("plan", "gone", "--out", "x"), "no such folder or table: gone"),
        (("plan", "photos", "--out", "x", "--target", "best"), "`targets` must be"),
        (("plan", "photos", "--out", "x", "--method", "magic"), "magic"),
        (("plan", "photos", "--out", "x", "--method", "lime", "-o", "lime.colour=1"), "has no option"),
        (("plan", "photos", "--out", "x", "--batch-size", 3), "a multiple of `batch_size`"),
        (("run", "gone", "--worker", "1of2"), "--worker must be I/N, as 0/4; got '1of2'"),
    ],
)
def test_mistakes_are_one_line(run, here, place, words, error):
    if words[0] == "plan":
        words = (*words, "--model", MODEL, "--input-size", 16)
    code, out, err = run("dataset", *words)
    assert code == 2 and not out and len(err) == 1 and error in err[0], err
    assert not (place / "x").exists()
