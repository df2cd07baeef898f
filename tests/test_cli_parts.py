"""The command's parts: classes by name, photos by path, output whole or not at all, errors in one line."""

import errno
import json

import numpy as np
import pytest

from jaxai.cli import classes, errors, methods, photos, report, staging
from jaxai.cli.registry import METHODS, Method

LABELS = ("tench", "Egyptian cat", "tiger cat", "crane", "tabby", "crane", "black and gold garden spider")


def test_targets_by_name_index_and_rank():
    scores = np.array([[0.0, 3.0, 1.0, 2.0, 9.0, 5.0, 4.0], [7.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])

    def of(target):
        return classes.parse(target, LABELS).of(scores).tolist()

    assert of(None) == [[4], [0]]
    assert of("top3") == [[4, 5, 6], [0, 6, 5]]
    assert of("egyptian CAT") == [[1], [1]]
    assert of("Egyptian_cat") == [[1], [1]]
    assert of("6") == [[6], [6]]
    assert of("tabby, 3") == [[4, 3], [4, 3]]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("7", "must be a class from 0 to 6; got 7"),
        ("-1", "must be a class from 0 to 6; got -1"),
        ("cat", "unknown class 'cat'; did you mean Egyptian cat or tiger cat?"),
        ("tabbi", "unknown class 'tabbi'; did you mean tabby?"),
        ("xyzzy", "unknown class 'xyzzy'$"),
        ("", "unknown class ''$"),
        ("crane", "2 classes are called 'crane': give an index, 3 or 5"),
        ("top0", "must be top1 to top7; got top0"),
        ("top8", "must be top1 to top7; got top8"),
        ("tabby,4", "names a class twice"),
    ],
)
def test_wrong_targets(target, message):
    with pytest.raises(ValueError, match=message):
        classes.parse(target, LABELS)


def test_an_entry_is_a_softmax():
    logits = np.array([0.0, np.log(3.0), 0.0, -np.inf])
    entry = classes.entry(1, ("a", "b", "c", "d"), logits)
    assert entry == {
        "index": 1,
        "label": "b",
        "probability": pytest.approx(0.6),
        "logit": pytest.approx(np.log(3)),
    }
    assert classes.named(entry) == "b (1), p = 0.60"
    assert classes.probabilities(np.array([[1000.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_photos_of_samples_paths_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpg", "note.txt", ".hidden.png", "one/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert photos.find(["cat"]) == ([photos.Photo("cat", "cat")], False)
    assert photos.find(["a.jpg"]) == ([photos.Photo("a.jpg", "a")], False)
    found, several = photos.find(["one"])
    assert ([photo.stem for photo in found], several) == (["a"], True)
    found, several = photos.find(["a.jpg", str(tmp_path), "cat", "cat"])
    assert several
    assert [photo.stem for photo in found] == ["a", "a_2", "b", "cat", "cat_2"]
    # A sample's name is the sample, wherever the command runs.
    (tmp_path / "cat").write_bytes(b"")
    assert photos.find(["cat"])[0][0].read().shape == (300, 451, 3)
    assert photos.find(["./cat"])[0][0].read() == "./cat"


def test_stems_stay_unique():
    stems = [photo.stem for photo in photos._unique(["x/a.png", "a_2.png", "y/a.png", "a.jpg", "a_2.jpg"])]
    assert len(set(stems)) == 5
    assert stems[:2] == ["a", "a_2"]


def test_no_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image: dog .the samples are cat, coffee"):
        photos.find(["dog"])
    with pytest.raises(ValueError, match="holds no image"):
        photos.find([str(tmp_path)])


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "new/out"
    with staging.folder(target) as place:
        (place / "a").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    with staging.folder(target) as place:
        (place / "b").write_text("2")
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), staging.folder(tmp_path / "a/b/out") as place:
        (place / "x").write_text("1")
        raise error
    with pytest.raises(type(error)), staging.file(tmp_path / "c/d.png") as place:
        place.write_text("1")
        raise error
    with pytest.raises(type(error)), staging.existing(tmp_path / "e/f"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("1")
    (tmp_path / "dream.png").write_text("2")
    with pytest.raises(ValueError), staging.folder(tmp_path / "out") as place:
        (place / "mine").write_text("x")
        raise ValueError
    with pytest.raises(ValueError), staging.file(tmp_path / "dream.png") as place:
        place.write_text("x")
        raise ValueError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dream.png", "mine", "out"]
    assert (tmp_path / "out/mine").read_text() + (tmp_path / "dream.png").read_text() == "12"


def test_output_of_another_kind_is_refused(tmp_path):
    (tmp_path / "file").write_text("1")
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
        staging.folder(tmp_path / "file").__enter__()
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
        staging.existing(tmp_path / "file").__enter__()
    with pytest.raises(OSError, match="is no ordinary file"):
        staging.file(tmp_path).__enter__()
    with pytest.raises(OSError), staging.folder(tmp_path / "file/out"):
        pass
    assert (tmp_path / "file").read_text() == "1"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (KeyError("ours"), None),
        (RuntimeError("ours"), None),
        (AssertionError(), None),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.png"),
            "no space left to write the output; nothing of it was kept",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: permission denied"),
        (FileNotFoundError("no such image: dog"), "no such image: dog"),
        (ImportError("install the extra"), "install the extra"),
        (MemoryError(), "out of memory: lower --batch-size"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GiB"), "out of memory: lower --batch-size"),
    ],
)
def test_errors_in_one_line(error, line):
    assert errors.explain(error) == line


def test_methods_by_name_with_options():
    lime, cam = methods.choose(
        "lime, grad-cam", ["lime.num_samples=64", "lime.fill=blur", "grad_cam.relu=False"]
    )
    assert (lime.name, cam.name) == ("lime", "grad_cam")
    assert lime.options == {"num_samples": 64, "fill": "blur"} and cam.options == {"relu": False}
    assert METHODS["lime"].options == {}
    settings = methods.settings(lime)
    assert settings["num_samples"] == 64 and settings["kernel_width"] == 0.25 and settings["fill"] == "blur"
    assert not {"key", "segments", "batch_size", "masks"} & settings.keys()
    json.dumps([methods.settings(method) for method in METHODS.values()], allow_nan=False)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("nope", [], "unknown method 'nope'; the methods are .*grad_cam"),
        ("lime,", [], "unknown method ''"),
        ("lime", ["num_samples=3"], "must be METHOD.NAME=VALUE; got 'num_samples=3'"),
        ("lime", ["lime.num_samples"], "must be METHOD.NAME=VALUE"),
        ("lime", ["grad_cam.relu=0"], "'grad_cam' is not among the methods lime"),
        ("lime", ["lime.samples=3"], "lime has the options .*num_samples"),
        ("lime", ["lime.key=3"], "lime has the options"),
    ],
)
def test_wrong_methods(names, options, message):
    with pytest.raises(ValueError, match=message):
        methods.choose(names, options)


def test_every_method_is_described():
    for name, method in METHODS.items():
        assert isinstance(method, Method) and method.name == name and method.run.__name__
        assert method.result in ("heatmap", "pixels", "segments")
        assert method.needs <= {"key", "layer", "segments", "batch_size", "normalize"}
        assert method.summary and "\n" not in method.summary and not method.summary.endswith(".")
        assert method.cost
        assert method.paper
        assert set(method.options) <= set(methods.defaults(method))


def test_superpixels_of_one_colour_become_a_grid():
    flat = np.full((1, 32, 32, 3), 0.5, np.float32)
    halves = flat.copy()
    halves[:, :, 16:] = (0.9, 0.1, 0.1)
    cut = methods.superpixels(np.concatenate([flat, halves]), "felzenszwalb")
    assert cut.methods == ("grid", "felzenszwalb")
    assert cut.counts == (64, 2)
    assert cut.labels[0].max() == 63 and cut.labels.dtype == np.int32


def test_numbers_that_json_does_not_know():
    found = report.numbers(np.array([[1.0, np.nan], [np.inf, 2.0]]))
    assert found == [[1.0, None], [None, 2.0]]
