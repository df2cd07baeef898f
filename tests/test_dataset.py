"""Data sets: what is in a store, whoever filled it and whatever went wrong meanwhile."""

import errno
import json
import threading

import data_sets
import jax
import numpy as np
import pytest

import jaxai
from jaxai import _files
from jaxai.dataset import _leases, _shards
from jaxai.models import photo_files


@pytest.fixture(scope="module")
def net(pooled_net):
    return data_sets.network(pooled_net)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_sets.photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(net, folder, tmp_path_factory):
    """A store that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole")
    data_sets.planned(net, folder, store)
    jaxai.dataset.run(store, net=net)
    return store


@pytest.mark.slow
def test_maps_and_rows_are_those_of_the_library(net, folder, whole):
    store = jaxai.dataset.open(whole)
    rows = store.table().to_pylist()
    assert [row["index"] for row in rows] == list(range(11))
    assert [row["path"] for row in rows] == sorted(store.plan.paths)
    for row in rows:
        cam, saliency = (store.maps[name][row["index"]] for name in ("grad_cam", "saliency"))
        if row["error"]:
            assert row["path"].endswith("004.png") and "not an image" in row["error"]
            assert str(folder) not in row["error"]
            assert np.isnan(cam).all() and np.isnan(saliency).all()
            continue
        images = net.normalize(net.crop(folder / row["path"]))
        logits = np.asarray(net.model(images))[0]
        assert row["target"] == [logits.argmax()] and row["label"] == row["path"].split("/")[0]
        assert row["score"] == pytest.approx([logits.max()], rel=1e-5)
        assert row["top"] == list(np.argsort(-logits)[:5])
        np.testing.assert_allclose(row["top_probability"], jax.nn.softmax(logits)[np.array(row["top"])], 1e-5)
        expected = jaxai.grad_cam(net.model, images, row["target"], upsample=False)[0]
        np.testing.assert_allclose(cam, expected, 1e-4, 1e-6)
        gradient = jaxai.saliency(net.model, images, row["target"])[0].sum(-1)
        # Half precision of the largest value.
        np.testing.assert_allclose(saliency, gradient, 1e-3, 1e-3 * np.abs(gradient).max())


def test_maps_are_indexed_as_numpy_has_it(whole):
    maps = jaxai.dataset.open(whole).maps["saliency"]
    every = maps[:]
    assert every.shape == maps.shape == (11, 16, 16)
    for index in (
        3,
        -1,
        slice(2, 9, 3),
        [5, 1],
        np.arange(11) > 7,
        (slice(1, 3), 4),
        (2, slice(0, 2), 5),
        ...,
    ):
        np.testing.assert_array_equal(maps[index], every[index])


def test_the_same_inputs_make_the_same_plan(net, folder, whole, tmp_path):
    made = data_sets.planned(net, folder, tmp_path / "a")
    assert made == jaxai.dataset.Plan.read(whole) == jaxai.dataset.Plan.read(tmp_path / "a")
    # The same store may be planned again; it is not touched.
    assert data_sets.planned(net, folder, tmp_path / "a").hash == made.hash
    for other in (
        {"seed": 1},
        {"batch_size": 4},
        {"targets": "top2"},
        {"methods": {"lrp": {"strict": True}}},
    ):
        assert data_sets.planned(net, folder, tmp_path / f"b{other}", **other).hash != made.hash
        with pytest.raises(ValueError, match="holds another plan"):
            data_sets.planned(net, folder, tmp_path / "a", **other)


def test_a_store_that_was_disturbed_is_mended(net, folder, whole, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    jaxai.dataset.run(tmp_path, net=net)
    assert data_sets.files(tmp_path) == data_sets.files(whole)
    # Files that are gone, cut short, changed; a shard that was left half done.
    cut = tmp_path / "maps/saliency/c/1/0/0"
    cut.write_bytes(cut.read_bytes()[:-9])
    changed = tmp_path / "maps/grad_cam/c/2/0/0"
    content = bytearray(changed.read_bytes())
    content[7] ^= 1
    changed.write_bytes(bytes(content))
    (tmp_path / "done/00000.json").unlink()
    (tmp_path / "rows/00000.parquet").unlink()
    store = jaxai.dataset.open(tmp_path)
    assert store.verify() == [1, 2] and store.status().missing == (0, 1)
    assert len(store.table()) == 3 and np.isfinite(store.maps["saliency"][8:]).all()
    with pytest.raises(ValueError, match="maps of grad_cam are damaged"):
        store.maps["grad_cam"][:]
    jaxai.dataset.run(tmp_path, net=net)
    assert data_sets.files(tmp_path) == data_sets.files(whole) and store.verify() == []


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_full_disk_keeps_what_is_finished(net, folder, whole, tmp_path, monkeypatch, after):
    data_sets.planned(net, folder, tmp_path)
    write, count = _files.write, iter(range(100))

    def full(path, chunks):
        if next(count) >= after:
            raise OSError(errno.ENOSPC, "no space left on device", str(path))
        write(path, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "write", full)
        with pytest.raises(OSError, match="no space"):
            jaxai.dataset.run(tmp_path, net=net)
    assert not list((tmp_path / "leases").iterdir())
    assert len(jaxai.dataset.status(tmp_path).done) == after // 4
    jaxai.dataset.run(tmp_path, net=net)
    assert data_sets.files(tmp_path) == data_sets.files(whole)


def test_random_numbers_depend_on_the_plan_alone(net, folder, tmp_path):
    for name, first in (("a", 0), ("b", 2)):
        data_sets.planned(net, folder, tmp_path / name, methods={"smooth_grad": {"num_samples": 3}})
        jaxai.dataset.run(tmp_path / name, net=net, worker=(first, 3))
    assert data_sets.files(tmp_path / "a") == data_sets.files(tmp_path / "b")
    maps = jaxai.dataset.open(tmp_path / "a").maps["smooth_grad"]
    assert not np.array_equal(maps[0], maps[1])


def test_an_image_that_has_changed_is_a_row_with_its_error(net, tmp_path):
    folder = data_sets.photos(tmp_path / "photos", 3, broken=())
    data_sets.planned(net, folder, tmp_path / "store")
    changed = folder / "kind 1" / "001.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    (folder / "kind 2" / "002.png").unlink()
    jaxai.dataset.run(tmp_path / "store", net=net)
    errors = jaxai.dataset.open(tmp_path / "store").table()["error"].to_pylist()
    assert errors[:2] == [None, "the image has changed since it was planned"] and "no such" in errors[2]


def test_a_folder_without_the_images_is_no_result(net, folder, whole, tmp_path):
    data_sets.planned(net, folder, tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="none of the images of shard 0 is in"):
        jaxai.dataset.run(tmp_path / "store", net=net, root=tmp_path / "empty")
    assert jaxai.dataset.status(tmp_path / "store").done == ()
    jaxai.dataset.run(tmp_path / "store", net=net)
    assert data_sets.files(tmp_path / "store") == data_sets.files(whole)


def test_a_disk_that_fails_stops_the_run(net, folder, tmp_path, monkeypatch):
    data_sets.planned(net, folder, tmp_path)

    def fail(path):
        raise OSError(errno.EIO, "input/output error", str(path))

    monkeypatch.setattr(photo_files, "content", fail)
    with pytest.raises(OSError, match="input/output error"):
        jaxai.dataset.run(tmp_path, net=net)
    assert jaxai.dataset.status(tmp_path).done == ()


@pytest.mark.parametrize(
    "number, first, count, place", [(14, 0, 8, (6, 8)), (7, 3, 2, (0, 2)), (3, 1, 4, (2, 4))]
)
def test_job_arrays_may_have_gaps(monkeypatch, number, first, count, place):
    for name, value in zip(jaxai.dataset._run._SLURM, (number, first, count), strict=True):
        monkeypatch.setenv(name, str(value))
    assert jaxai.dataset._run._place(None) == place


def test_images_may_move(net, folder, whole, tmp_path):
    moved = data_sets.photos(tmp_path / "moved")
    data_sets.planned(net, moved, tmp_path / "store")
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="`root` names another"):
        jaxai.dataset.run(tmp_path / "store", net=net)
    jaxai.dataset.run(tmp_path / "store", net=net, root=tmp_path / "elsewhere")
    mine, theirs = data_sets.files(tmp_path / "store"), data_sets.files(whole)
    assert {**mine, "plan.json": b""} == {**theirs, "plan.json": b""}


def test_gradients_that_16_bits_cannot_tell_from_zero_are_kept(folder, tmp_path):
    small = data_sets.network(lambda x: 1e-9 * x.mean((1, 2)) @ np.ones((3, 7), np.float32))
    data_sets.planned(small, folder, tmp_path, methods="saliency")
    jaxai.dataset.run(tmp_path, net=small)
    store = jaxai.dataset.open(tmp_path)
    # Three channels of a mean over 256 pixels.
    np.testing.assert_allclose(store.maps["saliency"][0], 3e-9 / 256, 1e-3)


@pytest.mark.slow
def test_labels_are_explained_and_compared(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path, targets="both", methods=["grad_cam", "lime"], segments="grid")
    jaxai.dataset.run(tmp_path, net=net)
    store = jaxai.dataset.open(tmp_path)
    rows = store.table().to_pylist()
    fine = [row for row in rows if row["error"] is None]
    assert all(row["target"] == [row["top"][0], int(row["label"][-1])] for row in fine)
    assert store.maps["grad_cam"].shape == (11, 2, 16, 16) == store.maps["lime"].shape
    row = fine[-1]
    images = net.normalize(net.crop(folder / row["path"]))
    for found, target in zip(store.maps["grad_cam"][row["index"]], row["target"], strict=True):
        expected = jaxai.grad_cam(net.model, images, target, upsample=False)[0]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-6)
    wrong = [row["index"] for row in fine if row["top"][0] != int(row["label"][-1])]
    assert sorted(row["index"] for row in store.wrong(100)) == sorted(wrong) and wrong
    gaps = [row["top_probability"][0] - row["top_probability"][1] for row in store.uncertain(3)]
    every = sorted(row["top_probability"][0] - row["top_probability"][1] for row in fine)
    np.testing.assert_allclose(gaps, every[:3])
    again = store.explain_again(row["index"], net=net, methods="grad_cam")
    assert again.maps["grad_cam"].shape[-2:] == (16, 16)


def test_mean_maps_are_means_of_shares(net, whole):
    store = jaxai.dataset.open(whole)
    means = store.mean_maps("saliency")
    assert sorted(means) == list(data_sets.LABELS[:3])
    rows = [row for row in store.table().to_pylist() if row["label"] == "kind 1" and not row["error"]]
    maps = np.stack([store.maps["saliency"][row["index"]] for row in rows])
    shares = maps / np.abs(maps).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(means["kind 1"], shares.mean(0), 1e-5, 1e-8)
    assert set(store.mean_maps(by="target")) <= set(data_sets.LABELS)


class TestLeases:
    def test_one_of_many_holds_a_shard(self, tmp_path):
        held, barrier = [], threading.Barrier(8)

        def take():
            barrier.wait()
            with _leases.lease(tmp_path, 3) as mine:
                held.append(mine)
                barrier.wait()

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(held) == [False] * 7 + [True]
        assert not list((tmp_path / "leases").iterdir())

    @pytest.mark.slow
    def test_the_lease_of_a_dead_worker_is_taken_and_a_living_one_renews_its_own(self, tmp_path):
        path = tmp_path / "leases" / "00003.json"
        path.parent.mkdir()
        path.write_text('{"token": "of a worker that died"}')
        assert _leases.held(tmp_path, 3)
        with _leases.lease(tmp_path, 3) as mine:
            assert not mine
        stopped = threading.Event()
        stopped.wait(0.3)
        assert not _leases.held(tmp_path, 3, expiry=0.2)
        with _leases.lease(tmp_path, 3, expiry=0.2) as mine:
            assert mine
            stopped.wait(0.6)
            with _leases.lease(tmp_path, 3, expiry=0.2) as second:
                assert not second

    def test_a_worker_that_was_stopped_leaves_the_lease_of_another(self, tmp_path):
        with _leases.lease(tmp_path, 0) as mine:
            assert mine
            path = tmp_path / "leases" / "00000.json"
            path.write_text('{"token": "of the worker that took over"}')
        assert json.loads(path.read_text())["token"] == "of the worker that took over"


def test_another_workers_shard_is_waited_for(net, folder, whole, tmp_path, monkeypatch):
    data_sets.planned(net, folder, tmp_path)
    monkeypatch.setattr(jaxai.dataset._run, "_PAUSE", 0.01)
    lease = tmp_path / "leases" / "00001.json"
    lease.parent.mkdir()
    lease.write_text('{"token": "of a worker that died"}')
    jaxai.dataset.run(tmp_path, net=net, expiry=0.5)
    assert data_sets.files(tmp_path) == data_sets.files(whole)


def test_scores_that_are_not_finite_are_rows_with_errors(folder, tmp_path):
    odd = data_sets.network(lambda x: x.mean((1, 2)) @ np.ones((3, 7), np.float32) * np.inf)
    data_sets.planned(odd, folder, tmp_path, methods="saliency")
    found = jaxai.dataset.run(tmp_path, net=odd)
    assert found.failed == 11
    errors = jaxai.dataset.open(tmp_path).table()["error"].to_pylist()
    assert sum(error == "small returns scores that are not finite" for error in errors) == 10
    assert np.isnan(jaxai.dataset.open(tmp_path).maps["saliency"][:]).all()


def test_images_are_read_ahead(net, whole, monkeypatch):
    plan = jaxai.dataset.Plan.read(whole)
    read = threading.Semaphore(0)

    def blank(self, number):
        read.release()
        return _shards.Photo(None, "", "blank")

    monkeypatch.setattr(_shards.Explainer, "read", blank)
    with _shards.ThreadPoolExecutor(1) as pool:
        batches = _shards.Explainer(plan, net, pool).batches(range(8), _shards.Times())
        next(batches)
        # The first batch is being explained; those of the next two are read meanwhile.
        for _ in range(6):
            assert read.acquire(timeout=10)
        assert not read.acquire(timeout=0.05)
