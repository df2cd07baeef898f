"""`--model` with files and functions."""

import json
import sys

import numpy as np
import pytest
from onnx_files import residual, save

from jaxai.cli import main
from jaxai.report import _networks as networks

FUNCTIONS = """
import jax, jaxai
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.conv(x)).mean((1, 2)))

def small():
    return Net(nnx.Rngs(0))

def whole():
    return jaxai.models.from_onnx("net.onnx", labels=list("abcdefg"))

number = 3

def none():
    return number

def edges():
    return lambda x: x.mean(-1)

def parts():
    return lambda x: jax.numpy.tanh(x)

def planes():
    return lambda x: jax.numpy.moveaxis(jax.numpy.tanh(x), -1, 1)

def features():
    return lambda x: x.mean((1, 2))

def several():
    return lambda x: {"boxes": x, "scores": x.mean((1, 2))}

def volume():
    return lambda x: x[..., None, None]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    save(residual(side=32), tmp_path / "net.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(f"thing {i}" for i in range(7)))
    (tmp_path / "nets_of_a_user.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("nets_of_a_user", None)


def run(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_file_is_explained(folder, capsys):
    code, out, err = run(
        *(capsys, "explain", "cat", "--model", "net.onnx", "--labels", "labels.txt", "--method", "grad_cam"),
        *("--normalize", "0.5/0.25", "--layer", "block/relu", "--target", "thing 3"),
    )
    assert code == 0, err
    facts = json.loads((folder / "out" / "explanation.json").read_text())
    assert facts["targets"][0]["label"] == "thing 3" and facts["model"]["name"] == "net"
    assert facts["methods"]["grad_cam"]["layer"] == "block/relu" and (folder / "out/grad_cam.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("function", "label"), [("small", "class 2"), ("whole", "c")])
def test_a_function_is_explained(folder, capsys, function, label):
    size = ["--input-size", "32"] if function == "small" else []
    words = [
        "explain",
        "cat",
        "--model",
        f"nets_of_a_user:{function}",
        "--method",
        "saliency",
        "--target",
        "2",
    ]
    code, _, err = run(capsys, *words, *size)
    assert code == 0, err
    facts = json.loads((folder / "out" / "explanation.json").read_text())
    assert facts["targets"][0]["label"] == label and len(facts["model"]["weights_sha256"]) == 64


def test_layers_of_a_file_and_a_function(folder, capsys):
    code, out, _ = run(capsys, "layers", "--model", "net.onnx")
    lines = [line.split("  ") for line in out.splitlines()]
    assert code == 0 and [line[0] for line in lines[1:4]] == ["stem/conv", "stem/relu", "stem/pool"]
    assert "32 x 32 x 8" in out and "last" in out and "default of layer methods" in out
    code, out, _ = run(capsys, "layers", "net.onnx", "--input-size", "48")
    assert code == 0 and "48 x 48 x 8" in out
    code, out, _ = run(capsys, "layers", "nets_of_a_user:small", "--input-size", "16")
    assert code == 0 and "16 x 16 x 4" in out


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("function", "target", "labels"),
    [
        ("edges", "mean,@0:0:0.5:1", ["mean", "mean in 0:0:0.5:1"]),
        ("edges", None, ["mean"]),
        ("parts", None, ["length"]),
        (
            "parts",
            "1,2@0:0.5:1:1,@0:0:0.5:0.5",
            ["channel 1", "channel 2 in 0:0.5:1:1", "mean in 0:0:0.5:0.5"],
        ),
        (
            "planes",
            "1,2@0:0.5:1:1,@0:0:0.5:0.5",
            ["channel 1", "channel 2 in 0:0.5:1:1", "mean in 0:0:0.5:0.5"],
        ),
        ("features", "length,like=coffee", ["length", "like coffee"]),
    ],
)
def test_networks_without_classes_are_explained_by_numbers_of_their_output(
    folder, capsys, function, target, labels
):
    words = ["explain", "cat", "--model", f"nets_of_a_user:{function}", "--method", "saliency"]
    words += ["--input-size", "8", *(["--target", target] if target else [])]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    facts = json.loads((folder / "out" / "explanation.json").read_text())
    assert [item["label"] for item in facts["targets"]] == labels and labels[0] in out
    stored = np.load(folder / "out" / "maps.npz")
    photo, found = stored["photo"], stored["saliency"]
    values = [item["value"] for item in facts["targets"]]
    if function == "edges":
        np.testing.assert_allclose(values[0], photo.mean(), rtol=1e-5)
    if len(labels) == 2 and function == "edges":
        np.testing.assert_allclose(values[1], photo[:, :4].mean(), rtol=1e-5)
        # The gradient lies in the box alone.
        assert (found[1][:, 4:] == 0).all() and (found[1][:, :4] != 0).all()
    if len(labels) == 3:
        acts = np.tanh(photo)
        wanted = [acts[..., 1].mean(), acts[4:, :, 2].mean(), acts[:4, :4].mean()]
        np.testing.assert_allclose(values, wanted, rtol=1e-5)
    if function == "features":
        np.testing.assert_allclose(values[0], np.linalg.norm(photo.mean((0, 1))), rtol=1e-5)
        assert 0.8 < values[1] < 1


def test_numbers_of_an_output_that_there_are_not(folder, capsys):
    explain = ("explain", "cat", "--input-size", "8", "--method", "saliency", "--model")
    for words, message in [
        (("nets_of_a_user:edges", "--target", "tabby"), "must be mean, length or a box"),
        (("nets_of_a_user:edges", "--target", "@0:0:2:1"), "a box is LEFT:TOP:RIGHT:BOTTOM with shares"),
        (("nets_of_a_user:edges", "--target", "@0:0:0.01:1"), "is smaller than a cell of the map, 8 x 8"),
        (("nets_of_a_user:edges", "--target", "mean,mean"), "names mean twice"),
        (
            ("nets_of_a_user:edges", "--target", "@0:0:1:1", "--fit", "tile"),
            "must not be a box for `fit` tile",
        ),
        (("nets_of_a_user:parts", "--target", "3"), "a channel from 0 to 2"),
        (("nets_of_a_user:features", "--target", "length,tabby"), "or a feature from 0 to 2; got 'tabby'"),
        (("nets_of_a_user:features", "--target", "like=dog"), "no such image: dog"),
        (("nets_of_a_user:several",), "several results, boxes, scores: choose by a function"),
        (("nets_of_a_user:volume",), "it must return scores [batch, classes]"),
    ]:
        code, _, err = run(capsys, *explain, *words)
        assert code == 2 and message in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("layers", "--model", "none.onnx"), "none.onnx: no such file"),
        (("layers", "--model", "labels.txt"), "unknown model 'labels.txt'"),
        (("layers", "--model", "nowhere.there:net"), "no module 'nowhere' for --model nowhere.there:net"),
        (("layers", "nets_of_a_user:other"), "nets_of_a_user has no 'other'"),
        (("layers", "nets_of_a_user:number"), "must be a function; got int"),
        (("layers", "nets_of_a_user:none"), "must return a model; it returned int"),
        (("layers", "vgg16", "--model", "vgg16"), "Pass one network"),
        (("layers", "vgg16", "--input-size", "3"), "--input-size is for files and functions"),
        (("explain", "cat", "--labels", "labels.txt"), "--labels is for files and functions"),
        (("explain", "cat", "--model", "net.onnx", "--normalize", "1/x"), "--normalize must be MEAN/STD"),
        (("explain", "cat", "--model", "net.onnx", "--normalize", "best"), "`normalize` must be one of"),
        (("explain", "cat", "--model", "net.onnx", "--labels", "nets_of_a_user.py"), "must be 7 names"),
        (("explain", "cat", "--model", "nets_of_a_user:whole", "--input-size", "9"), "return a Pretrained"),
    ],
)
def test_mistakes_give_one_line(folder, capsys, words, message):
    code, _, err = run(capsys, *words)
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_numbers_are_read():
    assert networks._numbers("0.1,0.2,0.3/2") == ((0.1, 0.2, 0.3), (2.0,))
    assert networks._numbers("imagenet") == "imagenet"
