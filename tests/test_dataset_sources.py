"""Layouts of data sets: splits, Hugging Face's metadata, tars of WebDataset, and tars written again."""

import io
import json
import shutil
import tarfile

import data_sets
import numpy as np
import pytest

import jaxai
from jaxai.dataset import _sources, _tars


@pytest.fixture(scope="module")
def net(pooled_net):
    return data_sets.network(pooled_net)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_sets.photos(tmp_path_factory.mktemp("photos"), 9)


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def packed(folder, place, *, sizes=(5, 4)):
    """The photos of a folder as tars, with labels in `.cls`, in the order of their paths."""
    place.mkdir()
    paths = sorted(folder.rglob("*.png"))
    at = 0
    for number, size in enumerate(sizes):
        files = {}
        for path in paths[at : at + size]:
            files[f"{path.stem}.cls"] = path.parent.name[-1].encode()
            files[f"{path.stem}.png"] = path.read_bytes()
        tar(place / f"train-{number:03d}.tar", files)
        at += size
    return place


def test_classes_lie_below_splits(folder, tmp_path):
    for split, kinds in (("train", (0, 1)), ("validation", (2,))):
        for kind in kinds:
            shutil.copytree(folder / f"kind {kind}", tmp_path / split / f"kind {kind}")
    found = _sources.listed(tmp_path)
    assert found.labels == [path.split("/")[1] for path in found.paths] and len(set(found.labels)) == 3
    # Folders that are no splits are classes, whatever lies in them.
    shutil.copytree(folder / "kind 2", tmp_path / "other" / "kind 2")
    assert set(_sources.listed(tmp_path).labels) == {"train", "validation", "other"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_hugging_face_is_the_table(folder, tmp_path, kind):
    shutil.copytree(folder, tmp_path / "data")
    rows = [("kind 0/000.png", "cat"), ("kind 2/002.png", "dog")]
    lines = [json.dumps({"file_name": path, "label": label}) for path, label in rows]
    if kind == "csv":
        lines = ["file_name,label", *(f"{path},{label}" for path, label in rows)]
    (tmp_path / "data" / f"metadata.{kind}").write_text("\n".join(lines))
    found = _sources.listed(tmp_path / "data")
    assert list(zip(found.paths, found.labels, strict=True)) == rows


@pytest.mark.parametrize(
    "text, error", [("{", "not a table of JSON lines"), ("[1]", "a JSON object in each")]
)
def test_json_lines_that_are_refused(tmp_path, text, error):
    (tmp_path / "table.jsonl").write_text(text)
    with pytest.raises(ValueError, match=error):
        _sources.listed(tmp_path / "table.jsonl")


@pytest.mark.slow
def test_tars_make_the_store_of_the_files(net, folder, tmp_path):
    tars = packed(folder, tmp_path / "packed")
    for name, images in (("files", folder), ("tars", tars)):
        options = {"targets": "label"} if name == "tars" else {}
        data_sets.planned(net, images, tmp_path / name, **options)
        jaxai.dataset.run(tmp_path / name, net=net)
    one, two = (jaxai.dataset.open(tmp_path / name) for name in ("files", "tars"))
    assert two.plan.tars == ("train-000.tar", "train-001.tar") and sorted(two.plan.digests) == sorted(
        one.plan.digests
    )
    assert two.plan.paths[5] == "train-001.tar/002.png"
    rows = {row["sha256"]: row for row in one.table().to_pylist()}
    for theirs in two.table().to_pylist():
        mine = rows.pop(theirs["sha256"])
        for name in ("sha256", "top", "error"):
            if mine["error"] is None or name != "error":
                assert mine[name] == theirs[name]
        assert theirs["label"] == mine["label"][-1] and theirs["label_index"] == int(mine["label"][-1])
    assert not rows
    again = two.explain_again(0, net=net, methods="saliency")
    assert (
        again.maps["saliency"].shape[:3] == (1, 16, 16) and again.records[0]["image"]["source"] == "000.png"
    )
    # Of a tar that has changed.
    path = tars / "train-001.tar"
    content = bytearray(path.read_bytes())
    content[two.plan.places[8][1] + 40] ^= 1
    path.write_bytes(bytes(content))
    assert _errors(net, tmp_path / "again", tars, two.plan) == {
        8: "the image has changed since it was planned"
    }


def _errors(net, store, tars, plan):
    from jaxai.dataset._plan import _write

    _write(plan, store, net.model)
    jaxai.dataset.run(store, net=net, root=tars)
    rows = jaxai.dataset.open(store).table().to_pylist()
    return {row["index"]: row["error"] for row in rows if row["error"] and "not an image" not in row["error"]}


def test_ways_to_name_tars(folder, tmp_path):
    tars = packed(folder, tmp_path / "tars")
    whole = _sources.listed(tars)
    names = [str(tars / f"train-{number:03d}.tar") for number in range(2)]
    assert _sources.listed(str(tars / "train-{000..001}.tar")) == whole == _sources.listed(names[::-1])
    assert len(_sources.listed(names[1]).paths) == 4
    assert _tars.expanded("a-{08..10}-{0..1}.tar")[:3] == ["a-08-0.tar", "a-08-1.tar", "a-09-0.tar"]
    with pytest.raises(FileNotFoundError, match="no such tar"):
        _sources.listed(str(tars / "train-{000..002}.tar"))


def test_samples_of_a_tar(tmp_path):
    files = {
        "a/1.jpg": b"x",
        "a/1.seg.png": b"mask",
        "a/1.json": b'{"label": "cat", "x": 1}',
        "a/2.json": b'{"caption": "no image"}',
        "b/1.png": b"yy",
        "b/1.txt": b"a caption",
        "b/2.PNG": b"zzz",
        "b/2.cls": b" 7 \n",
    }
    found = _tars.members(tar(tmp_path / "x.tar", files))
    assert [(one.name, one.label, one.size) for one in found] == [
        ("a/1.jpg", "cat", 1),
        ("b/1.png", None, 2),
        ("b/2.PNG", "7", 3),
    ]
    content = (tmp_path / "x.tar").read_bytes()
    assert [content[one.offset : one.offset + one.size] for one in found] == [b"x", b"yy", b"zzz"]


def test_tars_that_are_refused(tmp_path):
    two = tar(tmp_path / "two.tar", {"1.jpg": b"x", "1.png": b"y"})
    json_ = tar(tmp_path / "json.tar", {"1.jpg": b"x", "1.json": b"{"})
    text = tar(tmp_path / "text.tar", {"1.jpg": b"x", "1.cls": b"\xff"})
    good = tar(tmp_path / "good.tar", {"1.jpg": bytes(5000)})
    (tmp_path / "cut.tar").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "no.tar").write_bytes(b"no tar" * 200)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.jpg"), io.BytesIO())
    for path, error in (
        (two, "the sample 1 has 2 images"),
        (json_, "the JSON of the sample 1 is damaged"),
        (text, "1.cls is not text in UTF-8"),
        (tmp_path / "cut.tar", "cut short|damaged"),
        (tmp_path / "no.tar", "is not a tar"),
        (tmp_path / "packed.tar", "is not a tar, or is compressed"),
        (tar(tmp_path / "empty.tar", {"1.txt": b"x"}), "holds no image"),
    ):
        with pytest.raises(ValueError, match=error) as raised:
            _sources.listed(path)
        assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_store_is_written_as_tars_and_planned_again(net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path / "store", targets="label", metrics="gini")
    jaxai.dataset.run(tmp_path / "store", net=net)
    store = jaxai.dataset.open(tmp_path / "store")
    written = store.to_webdataset(tmp_path / "out", methods=["saliency"])
    assert [path.name for path in written] == ["000000.tar", "000001.tar", "000002.tar"]
    before = [path.read_bytes() for path in written]
    store.to_webdataset(tmp_path / "out", methods=["saliency"])
    assert [path.read_bytes() for path in written] == before
    with tarfile.open(written[0]) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive}
    rows = store.table().to_pylist()
    for row in rows[:4]:
        key = f"{row['index']:09d}"
        assert files[f"{key}.png"] == (folder / row["path"]).read_bytes()
        assert json.loads(files[f"{key}.json"]) == json.loads(json.dumps(row))
        assert files[f"{key}.cls"] == str(row["label_index"]).encode()
        if row["error"] is None:
            found = np.load(io.BytesIO(files[f"{key}.saliency.npy"]))
            np.testing.assert_array_equal(found, store.maps["saliency"][row["index"]])
    assert f"{rows[-1]['index']:09d}.grad_cam.npy" not in files
    data_sets.planned(net, tmp_path / "out", tmp_path / "again", targets="label")
    jaxai.dataset.run(tmp_path / "again", net=net)
    again = jaxai.dataset.open(tmp_path / "again")
    np.testing.assert_array_equal(again.maps["grad_cam"][:], store.maps["grad_cam"][:])
    with pytest.raises(ValueError, match="maps of grad_cam, saliency; got 'lime'"):
        store.to_webdataset(tmp_path / "out", methods=["lime"])
