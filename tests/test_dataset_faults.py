"""Data sets: what a run refuses, what it leaves behind, and what it says when workers die."""

import json
import multiprocessing
import os
import pathlib
from dataclasses import replace

import data_sets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.dataset import _leases, _processes, _status
from jaxai.models import photo_files
from jaxai.report import _errors, _session


@pytest.fixture(scope="module")
def net(pooled_net):
    return data_sets.network(pooled_net)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_sets.photos(tmp_path_factory.mktemp("photos"), 5)


WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(3, 7)), jnp.float32)


def linear(weights, x):
    return x.mean((1, 2)) @ weights


def bent(weights, x):
    return jax.nn.relu(x).mean((1, 2)) @ weights


def test_the_same_weights_in_another_program_are_another_network(folder, tmp_path):
    net, other = (data_sets.network(jax.tree_util.Partial(f, WEIGHTS)) for f in (linear, bent))
    assert net.digest == other.digest
    data_sets.planned(net, folder, tmp_path, methods="saliency")
    for call in (
        lambda: jaxai.dataset.run(tmp_path, net=other),
        lambda: data_sets.planned(other, folder, tmp_path, methods="saliency"),
        # What surrounds the weights counts too.
        lambda: jaxai.dataset.run(tmp_path, net=replace(net, normalize=lambda x: 2 * x)),
    ):
        with pytest.raises(ValueError, match="another p") as raised:
            call()
        assert "\n" not in str(raised.value)
    assert jaxai.dataset.status(tmp_path).done == ()
    jaxai.dataset.run(tmp_path, net=net)
    with pytest.raises(ValueError, match="another program"):
        jaxai.dataset.open(tmp_path).explain_again(0, net=other)


def test_the_last_digits_of_scores_are_no_other_program(folder, tmp_path):
    net = data_sets.network(jax.tree_util.Partial(linear, WEIGHTS))
    made = data_sets.planned(net, folder, tmp_path, methods="saliency")
    path = tmp_path / "plan.json"
    content = json.loads(path.read_text())
    content["probe"] = [[value * (1 + 1e-5) for value in row] for row in content["probe"]]
    path.write_text(json.dumps(content))
    assert jaxai.dataset.Plan.read(tmp_path).hash == made.hash
    assert jaxai.dataset.run(tmp_path, net=net).missing == ()


def test_looking_at_a_store_writes_nothing(net, folder, tmp_path, monkeypatch):
    data_sets.planned(net, folder, tmp_path)
    jaxai.dataset.run(tmp_path, net=net)
    (tmp_path / "done" / "00001.json").unlink()
    (tmp_path / "leases" / "00001.json").write_text('{"token": "of another"}')

    def refuse(*_, **__):
        raise PermissionError(13, "permission denied")

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(pathlib.Path, "touch", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    assert jaxai.dataset.status(tmp_path).running == (1,)
    store = jaxai.dataset.open(tmp_path)
    assert store.verify() == [] and store.maps["saliency"][:].shape == (5, 16, 16)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_dead_workers_left_among_leases_is_swept(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    jaxai.dataset.run(tmp_path, net=net)
    leases = tmp_path / "leases"
    for name in (".0a1b2c3d.clock", ".00000.json.0123456789abcdef", "00001.json", "00007.json"):
        (leases / name).write_text("{}")
        os.utime(leases / name, (0, 0))
    (leases / ".4e5f6a7b.clock").touch()  # Of a worker that lives.
    jaxai.dataset.run(tmp_path, net=net)
    assert sorted(path.name for path in leases.iterdir()) == [".4e5f6a7b.clock", "00007.json"]


class Process:
    """A process that is dead as soon as it has started; the first ones finish a shard."""

    exitcode, pid, starts, useful = -9, 1 << 30, 0, 20

    def __init__(self, target, args, daemon):
        self.store = pathlib.Path(args[0])

    def start(self):
        Process.starts += 1
        if Process.starts <= self.useful:
            path = self.store / "done" / f"{Process.starts:05d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    def is_alive(self):
        return False


class Context:
    """A way to start those."""

    Process = Process
    SimpleQueue = staticmethod(multiprocessing.get_context("spawn").SimpleQueue)


def test_only_deaths_without_a_finished_shard_between_count(net, folder, tmp_path, monkeypatch):
    plan = data_sets.planned(net, folder, tmp_path)
    monkeypatch.setattr(_processes.multiprocessing, "get_context", lambda _: Context)
    monkeypatch.setattr(_processes, "_PAUSE", 0.0)
    with pytest.raises(ChildProcessError, match="in a row .signal 9, as when memory runs out") as raised:
        _processes.run(tmp_path, plan, 1, 60.0, None)
    assert Process.starts == Process.useful + _processes.DEATHS
    assert _errors.explain(raised.value) == str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("none of the images is here"),
        OSError(28, "No space left on device", "/store/rows"),
        PermissionError(13, "Permission denied", "/store"),
        ValueError("the plan is for other weights"),
        TypeError("`net` must be a name"),
        ImportError("data sets need PyArrow"),
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    ],
)
def test_errors_of_workers_keep_their_kind_and_their_line(error):
    line = _errors.explain(error)
    found = _processes.unpacked(*_processes.packed(error, line))
    assert _errors.explain(found) == line
    assert type(found) is (MemoryError if isinstance(error, RuntimeError) else type(error))
    assert getattr(found, "errno", None) == getattr(error, "errno", None)


def test_one_worker_among_processes_is_refused(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    with pytest.raises(ValueError, match="`worker` is one that something else starts: give one"):
        jaxai.dataset.run(tmp_path, workers=2, worker=(0, 2))


def test_engines_that_are_refused(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    for options, error in (
        ({"engine": "spark"}, "`engine` must be"),
        ({"engine": "ray"}, "`workers` and Ray need a network that has a name"),
        ({"engine": "ray", "worker": (0, 2)}, "give one"),
        ({"address": "10.0.0.1:6379"}, '`address` is for `engine="ray"`'),
    ):
        with pytest.raises(ValueError, match=error):
            jaxai.dataset.run(tmp_path, net=net, **options)


def test_the_lease_of_a_process_that_is_known_to_be_dead_is_free(tmp_path):
    with _leases.lease(tmp_path, 2) as mine:
        assert mine
        found = json.loads((tmp_path / "leases" / "00002.json").read_text())
        _leases.drop(tmp_path, found["host"], found["process"] + 1)
        assert _leases.held(tmp_path, 2)
        _leases.drop(tmp_path, found["host"], found["process"])
        assert not _leases.held(tmp_path, 2)


def test_each_worker_checks_its_share_and_reads_no_other(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    jaxai.dataset.run(tmp_path, net=net)
    whole = data_sets.files(tmp_path)
    damaged = tmp_path / "maps/saliency/c/1/0/0"
    content = bytearray(damaged.read_bytes())
    content[7] ^= 1
    damaged.write_bytes(bytes(content))
    jaxai.dataset.run(tmp_path, net=net, worker=(0, 2))
    assert data_sets.files(tmp_path) != whole
    jaxai.dataset.run(tmp_path, net=net, worker=(1, 2))
    assert data_sets.files(tmp_path) == whole


def test_what_is_finished_is_read_once(net, folder, tmp_path, monkeypatch):
    plan = data_sets.planned(net, folder, tmp_path)
    jaxai.dataset.run(tmp_path, net=net)
    watch, read, record = _status.Watch(tmp_path, plan), [], _status.record
    monkeypatch.setattr(_status, "record", lambda *about: read.append(about[2]) or record(*about))
    (tmp_path / "leases" / "00001.json").write_text("{}")
    assert [watch.status() for _ in range(3)] == [jaxai.dataset.status(tmp_path)] * 3
    assert sorted(read) == [0, 0, 1, 1] and watch.status().running == ()
    (tmp_path / "done" / "00001.json").unlink()
    found = watch.status()
    assert found.done == (0,) and found.running == (1,) and found.missing == (1,)


def test_images_that_moved_are_explained_again(net, tmp_path):
    data_sets.photos(tmp_path / "photos", 2, broken=())
    data_sets.planned(net, tmp_path / "photos", tmp_path / "store")
    jaxai.dataset.run(tmp_path / "store", net=net)
    (tmp_path / "photos").rename(tmp_path / "moved")
    store = jaxai.dataset.open(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        store.explain_again(1, net=net)
    again = store.explain_again(1, net=net, root=tmp_path / "moved", methods="saliency")
    assert again.maps["saliency"].shape[:3] == (1, 16, 16)
    path = tmp_path / "moved" / store.plan.paths[1]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="has changed since it was explained"):
        store.explain_again(1, net=net, root=tmp_path / "moved")


def test_a_shard_whose_images_all_fail_at_last_leaves_no_old_maps(net, tmp_path):
    folder = data_sets.photos(tmp_path / "photos", 6, broken=())
    data_sets.planned(net, folder, tmp_path / "store")
    jaxai.dataset.run(tmp_path / "store", net=net)
    old = tmp_path / "store/maps/saliency/c/1/0/0"
    assert old.exists()
    for path in jaxai.dataset.open(tmp_path / "store").plan.paths[4:]:
        (folder / path).write_bytes(b"no photo")
    (tmp_path / "store/done/00001.json").unlink()
    jaxai.dataset.run(tmp_path / "store", net=net)
    store = jaxai.dataset.open(tmp_path / "store")
    assert not old.exists() and store.verify() == [] and store.status().failed == 2
    assert np.isnan(store.maps["saliency"][4:]).all() and np.isfinite(store.maps["saliency"][:4]).all()


def test_accelerators_are_asked_for_whole_float32(folder, tmp_path, monkeypatch):
    seen = []

    def model(x):
        seen.append(jax.config.jax_default_matmul_precision)
        return x.mean((1, 2)) @ WEIGHTS

    monkeypatch.setattr(_session.jax, "default_backend", lambda: "gpu")
    data_sets.planned(data_sets.network(model), folder, tmp_path, methods="saliency")
    seen.clear()
    again = data_sets.network(lambda x: model(x))
    seen.clear()  # Of how its layers are found.
    jaxai.dataset.run(tmp_path, net=again)
    assert len(seen) > 1 and set(seen) == {"highest"}
    assert jax.config.jax_default_matmul_precision is None


def test_maps_that_are_not_finite_are_no_zeros_in_means(net, folder, tmp_path, monkeypatch):
    data_sets.planned(net, folder, tmp_path, methods="saliency")
    jaxai.dataset.run(tmp_path, net=net)
    store = jaxai.dataset.open(tmp_path)
    maps = store.maps["saliency"]
    broken = np.array(maps[:])
    members = [row["index"] for row in store.table().to_pylist() if row["label"] == "kind 0"]
    broken[members[0]] = np.nan
    monkeypatch.setattr(type(maps), "__getitem__", lambda self, index: broken[index])
    found = store.mean_maps("saliency")["kind 0"]
    shares = broken[members[1:]] / np.abs(broken[members[1:]]).sum((1, 2), keepdims=True)
    assert len(members) > 1
    np.testing.assert_allclose(found, shares.mean(0), 1e-5, 1e-8)
    broken[members] = np.nan
    assert np.isnan(store.mean_maps("saliency")["kind 0"]).all()


def test_a_file_is_read_once(net, folder, tmp_path, monkeypatch):
    data_sets.planned(net, folder, tmp_path)
    read, content = [], photo_files.content

    def counted(path):
        read.append(pathlib.Path(path).name)
        return content(path)

    monkeypatch.setattr(photo_files, "content", counted)
    monkeypatch.setattr(photo_files, "open_file", lambda *_: pytest.fail("opened a second time"))
    jaxai.dataset.run(tmp_path, net=net)
    assert sorted(read) == [f"{number:03d}.png" for number in range(5)]


def test_a_pipe_is_a_row_with_its_error(net, tmp_path):
    folder = data_sets.photos(tmp_path / "photos", 3, broken=())
    data_sets.planned(net, folder, tmp_path / "store")
    path = folder / "kind 1" / "001.png"
    path.unlink()
    os.mkfifo(path)
    jaxai.dataset.run(tmp_path / "store", net=net)
    errors = jaxai.dataset.open(tmp_path / "store").table()["error"].to_pylist()
    assert errors == [None, "kind 1/001.png: it is not a regular file", None]
