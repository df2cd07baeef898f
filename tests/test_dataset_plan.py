"""What a plan refuses, and the images that folders and tables name."""

import csv
import json

import data_sets
import pyarrow as pa
import pyarrow.parquet
import pytest

import jaxai
from jaxai.dataset import _sources


@pytest.fixture(scope="module")
def net(pooled_net):
    return data_sets.network(pooled_net)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_sets.photos(tmp_path_factory.mktemp("photos"), 5)


def test_folders_tables_and_lists_name_the_same(folder, tmp_path):
    tree = _sources.listed(folder)
    assert tree.paths == sorted(tree.paths) and len(tree.paths) == 5
    assert tree.labels == [path.split("/")[0] for path in tree.paths]
    rows = [(str(folder / path), label) for path, label in zip(tree.paths, tree.labels, strict=True)]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "class"), *reversed(rows)])
    table = {"path": [path for path, _ in rows], "label": [label for _, label in rows]}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "table.parquet")
    for images in (tmp_path / "table.csv", str(tmp_path / "table.parquet"), dict(rows)):
        found = _sources.listed(images)
        assert [found.root / path for path in found.paths] == [folder / path for path in tree.paths]
        assert found.labels == tree.labels
    assert _sources.listed([path for path, _ in rows]).labels == [None] * 5


def test_hidden_files_and_others_are_left_out(tmp_path):
    data_sets.photos(tmp_path, 2)
    (tmp_path / "kind 0" / "notes.txt").write_text("no photo")
    (tmp_path / "kind 0" / ".000.png").write_bytes(b"of a file manager")
    assert _sources.listed(tmp_path).paths == ["kind 0/000.png", "kind 1/001.png"]


@pytest.mark.parametrize(
    "text, error",
    [
        ("file,label\na.png,x\n", "must have a column `path`; it has file, label"),
        ("path\n\n", "holds no image"),
        ("path,label\n,x\n", "row 1 has no path"),
        ("path\nmissing.png\n", "no such image"),
        ("path\na.png\n./a.png\n", "is named twice"),
        ("", "must have a column `path`"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, error):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        _sources.listed(tmp_path / "table.csv")


def test_other_images_that_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.csv").write_bytes(b"path\n\xff\xfe")
    (tmp_path / "photo.png").write_bytes(b"")
    for images, error in (
        (tmp_path / "empty", "holds no image"),
        (tmp_path / "gone", "no such folder or table"),
        (tmp_path / "photo.png", "must be a folder, a .tar, or a table"),
        (tmp_path / "odd.csv", "not a CSV table in UTF-8"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            _sources.listed(images)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"methods": "magic"}, "magic"),
        ({"methods": {"lime": {"colour": 1}}}, "has no option 'colour'"),
        ({"methods": {"rise": {"probability": 7}}}, "probability"),
        ({"methods": {"occlusion": {"fill": lambda x: x}}}, "must be a number, a text or a list"),
        ({"targets": "best"}, "`targets` must be"),
        ({"targets": "top9"}, "top1 to top7"),
        ({"layer": "conv9"}, "conv9"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": 3}, "`shard_size` must be a multiple of `batch_size`; got 4 and 3"),
        ({"segments": "magic"}, "`segments` must be"),
        ({"fit": "tile"}, "`fit`"),
        ({"targets": "label", "label_order": "sorted"}, "3 labels for the network's 7 classes"),
        ({"targets": "label", "label_order": "abcdefg"}, "`label_order` must be"),
        ({"targets": "label", "label_order": list("abcdefg")}, "lacks the label 'kind 0'"),
    ],
)
def test_plans_that_are_refused_leave_nothing(net, folder, tmp_path, options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        data_sets.planned(net, folder, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


def test_labels_become_classes(net, folder, tmp_path):
    by_name = data_sets.planned(net, folder, tmp_path / "a", targets="label")
    assert by_name.classes == {"kind 0": 0, "kind 1": 1, "kind 2": 2}
    order = [f"kind {i}" for i in (3, 2, 1, 0, 4, 5, 6)]
    given = data_sets.planned(net, folder, tmp_path / "b", targets="label", label_order=order)
    assert given.classes == {"kind 0": 3, "kind 1": 2, "kind 2": 1}
    paths = sorted(folder.rglob("*.png"))
    with pytest.raises(ValueError, match="the images have none"):
        data_sets.planned(net, paths, tmp_path / "c", targets="label")


def test_a_folder_that_is_in_use_is_refused(net, folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no plan"):
        data_sets.planned(net, folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda plan: plan | {"seed": 5}, "its hash does not fit"),
        (lambda plan: plan | {"format": 3}, "has format 3; this version reads 2"),
        (lambda plan: {"format": 1}, "it is not a plan"),
        (lambda plan: [plan], "it is not a plan"),
        (lambda plan: plan | {"paths": 5}, "it is not a plan"),
    ],
)
def test_damaged_plans(net, folder, tmp_path, change, error):
    data_sets.planned(net, folder, tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    for call in (jaxai.dataset.run, jaxai.dataset.status, jaxai.dataset.open):
        with pytest.raises(ValueError, match=error):
            call(tmp_path)


def test_runs_that_are_refused(net, pooled_net, folder, tmp_path):
    data_sets.planned(net, folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a store"):
        jaxai.dataset.run(tmp_path / "gone")
    with pytest.raises(ValueError, match="give it as `net`"):
        jaxai.dataset.run(tmp_path)
    other = data_sets.network(jaxai.chain({"mean": lambda x: x.mean((1, 2)) @ [[1.0] * 7] * 3}))
    with pytest.raises((ValueError, TypeError)):
        jaxai.dataset.run(tmp_path, net=other)
    with pytest.raises(ValueError, match="`worker` must be"):
        jaxai.dataset.run(tmp_path, net=net, worker=(2, 2))
    with pytest.raises(ValueError, match="a network that has a name"):
        jaxai.dataset.run(tmp_path, net=net, workers=2)
    assert jaxai.dataset.status(tmp_path).done == ()
    with pytest.raises(ValueError, match="its shard is not done"):
        jaxai.dataset.open(tmp_path).explain_again(0, net=net)
    with pytest.raises(IndexError, match="from 0 to 4"):
        jaxai.dataset.open(tmp_path).explain_again(5, net=net)
    with pytest.raises(ValueError, match="maps of grad_cam, saliency"):
        jaxai.dataset.open(tmp_path).mean_maps("lime")
