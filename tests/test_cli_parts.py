"""The command's parts: classes by name, photos by path, outputs and records, errors in one line."""

import errno
import io
import os
import sys

import jax
import numpy as np
import pytest

import jaxai
from jaxai.cli import terminal
from jaxai.report import _classes as classes
from jaxai.report import _errors as errors
from jaxai.report import _names as names
from jaxai.report import _outputs as outputs
from jaxai.report import _photos as photos

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
        (f"top{'9' * 5000}", "must be top1 to top7; got top999"),
        ("9" * 5000, "must be a class from 0 to 6; got 999"),
        (f"-{'9' * 5000}", "must be a class from 0 to 6; got -999"),
        ("egyptiancat", "unknown class 'egyptiancat'; did you mean Egyptian cat"),
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


def test_an_entry_of_probabilities_has_no_second_softmax():
    shares = np.array([0.25, 1 - 1e-6, 0.9])
    entries = [classes.entry(i, ("a", "b", "c"), shares, normalized=True) for i in range(3)]
    assert [one["probability"] for one in entries] == shares.tolist()
    assert [one["logit"] for one in entries] == [None, None, None]
    assert [bool(classes.flat(one)) for one in entries] == [False, True, False]
    assert "that of b is 1, where it is flat" in classes.flat(entries[1])
    assert classes.flat(classes.entry(0, ("a", "b"), np.array([90.0, 0.0]))) == ""
    # One logit is that of class 0, and logits of probabilities are their inverse.
    assert classes.entry(0, ("a",), np.array([np.log(3.0)]))["probability"] == pytest.approx(0.75)
    for some in ([0.75], [0.1, 0.3, 0.6]):
        again = classes.probabilities(classes.logits(np.array(some))[None])[0]
        np.testing.assert_allclose(again, some, rtol=1e-6)


def test_photos_of_samples_paths_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpg", "note.txt", ".hidden.png", "one/a.png", "one/b.jfif", "one/c.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert photos.find(["cat"]) == ([photos.Photo("cat", "cat")], False, [])
    assert photos.find(["a.jpg"]) == ([photos.Photo("a.jpg", "a")], False, [])
    found = photos.find(["one"])
    assert ([photo.folder for photo in found.photos], found.several) == (["a", "b"], True)
    assert found.notes == ["one: left out .heic (1)"]
    (tmp_path / "dead.png").symlink_to("nowhere")
    found = photos.find(["a.jpg", str(tmp_path), "cat", "cat"])
    assert found.several
    # Each photo once, also where it is named twice.
    assert [photo.folder for photo in found.photos] == ["a", "b", "cat"]
    assert found.notes == [f"{tmp_path}: left out dead links (1), .txt (1), folders (1)"]
    # A sample's name is the sample, wherever the command runs.
    (tmp_path / "cat").write_bytes(b"")
    assert photos.find(["cat"]).photos[0].read().shape == (300, 451, 3)
    assert photos.find(["./cat"]).photos[0].read() == "./cat"


def test_names_of_folders_do_not_depend_on_the_order():
    sources = ["x/a.png", "y/a.png", "a.jpg", "b.jpg", "B.png", "a.jpg.png", "cat"]
    found = dict(zip(sources, names.folders(sources), strict=True))
    assert found == dict(zip(sources[::-1], names.folders(sources[::-1]), strict=True))
    assert len({name.casefold() for name in found.values()}) == len(sources)
    assert (found["b.jpg"], found["B.png"], found["cat"]) == ("b.jpg", "B.png", "cat")
    assert found["x/a.png"].startswith("a-") and found["x/a.png"] != found["y/a.png"]
    # Alone, a photo is named as it is among photos that are called otherwise.
    assert names.folders(["y/a.png"]) == names.folders(["cat", "y/a.png"])[1:] == ["a"]


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("...png", "png"),
        ("...", "photo"),
        ("..png", "png"),
        (".png", "png"),
        ("x/...a.png", "a"),
        ("a. .png", "a"),
        ("a\x1b[31m\n.png", "a_[31m_"),
        ("caf\udce9.png", "caf\udce9"),
        ("$x^2_{$.png", "$x^2_{$"),
        (f"{'n' * 251}.png", "n" * 251),
    ],
)
def test_a_folder_is_inside_and_steers_no_terminal(source, folder):
    assert names.folders([source]) == [folder]


def test_the_longest_names_stay_apart():
    sources = [f"{place}/{'猫' * 83}{end}" for place in "xy" for end in (".jpg", ".png")]
    found = names.folders(sources)
    assert len(set(found)) == 4
    assert max(len(name.encode()) for name in found) <= 255


def test_no_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image: dog .the samples are cat, coffee"):
        photos.find(["dog"])
    with pytest.raises(FileNotFoundError, match="no such image: cofee .did you mean coffee"):
        photos.find(["cofee"])
    with pytest.raises(ValueError, match="holds no image"):
        photos.find([str(tmp_path)])
    with pytest.raises(ValueError, match="named by an empty word"):
        photos.find([""])
    os.mkfifo(tmp_path / "f.jpg")
    with pytest.raises(ValueError, match="f.jpg is not a regular file; expected a photo"):
        photos.find([str(tmp_path / "f.jpg")])
    (tmp_path / "dead.png").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match="dead.png is a link to a file that does not exist"):
        photos.find([str(tmp_path / "dead.png")])


def test_output_of_another_kind_is_refused(tmp_path):
    none = outputs.Sources([])
    (tmp_path / "file").write_text("1")
    for path in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
            outputs.check_folder(path, [], none)
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
        outputs.check_file(tmp_path / "file/a.png", none)
    with pytest.raises(OSError, match="is not a regular file"):
        outputs.check_file(tmp_path, none)
    (tmp_path / "out/lime.png").mkdir(parents=True)
    with pytest.raises(OSError, match="lime.png is not a regular file"):
        outputs.check_folder(tmp_path / "out", ["lime.png"], none)
    (tmp_path / "dead").symlink_to("nowhere")
    for path in (tmp_path / "dead", tmp_path / "dead/out"):
        with pytest.raises(OSError, match="dead is a link to something that does not exist"):
            outputs.check_folder(path, [], none)
        with pytest.raises(OSError, match="dead is a link to something that does not exist"):
            outputs.check_file(path, none)
    with pytest.raises(OSError, match="too long"):
        outputs.check_file(tmp_path / ("n" * 300), none)
    assert not (tmp_path / "nowhere").exists() and (tmp_path / "file").read_text() == "1"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_source_is_known_by_what_it_is(tmp_path, link):
    photo = tmp_path / "photo.png"
    photo.write_text("1")
    link(photo, tmp_path / "lime.png")
    sources = outputs.Sources([photo, None, tmp_path / "missing"])
    with pytest.raises(ValueError, match="lime.png would replace .*photo.png, which is read"):
        outputs.check_folder(tmp_path, ["grad_cam.png", "lime.png"], sources)
    with pytest.raises(ValueError, match="lime.png would replace .*photo.png"):
        outputs.check_file(tmp_path / "lime.png", sources)
    outputs.remove(tmp_path, ["lime.png", "photo.png", "../up.png", "gone.png", 3], sources)
    assert photo.exists() and (tmp_path / "lime.png").exists()


def test_what_a_foreign_record_lists_is_removed_inside_its_folder_alone(tmp_path):
    for name in ("up.png", "out/mine.txt", "out/lime.png", "out/inner/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    listed = ["../up.png", str(tmp_path / "up.png"), "mine.txt", "lime.png", "inner/a.png", "inner", None]
    outputs.remove(tmp_path / "out", listed, outputs.Sources([]))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["out/inner/a.png", "out/mine.txt", "up.png"]


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", "[" * 100_000, "\xff"])
def test_a_record_that_is_none_counts_as_empty(tmp_path, text):
    (tmp_path / "explanation.json").write_bytes(text.encode("latin-1"))
    assert outputs.record(tmp_path / "explanation.json") == {}
    assert outputs.record(tmp_path / "missing.json") == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 猫 é", "plain 猫 é"),
        ("a\x1b[31mb\nc\td\x9b", r"a\x1b[31mb\nc\td\x9b"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("cat\u202egnp.exe\u2028", r"cat\u202egnp.exe\u2028"),
        ("x" * 3000, "x" * 1997 + "..."),
    ],
)
def test_lines_steer_no_terminal(text, shown):
    assert terminal.readable(text) == shown


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "猫 \\xe9"), ("ascii", "\\u732b \\xe9")])
def test_lines_in_every_encoding(monkeypatch, encoding, shown):
    raw = io.BytesIO()
    for name, say in (("stdout", terminal.say), ("stderr", terminal.note)):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
        say("猫 \udce9")
    assert raw.getvalue().decode() == f"{shown}\njaxai: {shown}\n"


def test_what_names_may_have_meant():
    assert names.near("gradcam", ["lime", "grad_cam", "grad_cam_plus_plus"])[0] == "grad_cam"
    assert names.near("Conv5-3", ["conv5_3", "pool5"]) == ["conv5_3"]
    assert names.near("x" * 10**6, ["conv5_3"]) == []
    assert names.unknown("layer", "conv", ["a", "b"]) == "unknown layer 'conv'; the layers are a, b"
    line = names.unknown("layer", "block1", ["block1a", "block1b"], "jaxai layers net")
    assert line == "unknown layer 'block1'; did you mean block1a or block1b? (`jaxai layers net` lists all)"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (KeyError("ours"), None),
        (RuntimeError("ours"), None),
        (AssertionError(), None),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.png"),
            "no space left to write the output; only what was finished is kept",
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


def _raised(make):
    """Return the error that a call raises."""
    with pytest.raises(Exception) as caught:
        make()
    return caught.value


def test_operations_that_fail_are_no_refusals():
    """What Python, NumPy or JAX raises inside is no mistake that a line could explain."""
    refusal = _raised(lambda: classes.parse("moggy", LABELS))
    assert errors.explain(refusal) == "unknown class 'moggy'"
    for inner in (
        lambda: classes.parse(3, LABELS),
        lambda: int("x"),
        lambda: np.log(np.array(["x"])),
        lambda: jax.numpy.zeros(3) + jax.numpy.zeros(2),
        lambda: jax.jit(lambda x: x.reshape(7))(jax.numpy.zeros(3)),
    ):
        error = _raised(inner)
        assert isinstance(error, (ValueError, TypeError, AttributeError)) and errors.explain(error) is None
        assert errors.described(error).startswith(f"unexpected {type(error).__name__}: ")
    inside = _raised(
        lambda: jax.jit(lambda x: jaxai.occlusion(lambda y: y.sum((1, 2)), x, window=0))(
            jax.numpy.zeros((1, 8, 8, 3))
        )
    )
    assert "window" in errors.explain(inside)


def test_numbers_that_json_does_not_know():
    found = outputs.numbers(np.array([[1.0, np.nan], [np.inf, 2.0]]))
    assert found == [[1.0, None], [None, 2.0]]
