"""`--model` with files and functions."""

import json
import sys

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
    code, out, _ = run(capsys, "layers", "nets_of_a_user:small", "--input-size", "16")
    assert code == 0 and "16 x 16 x 4" in out


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
        (
            ("explain", "cat", "--model", "net.onnx", "--input-size", "9"),
            "what the file fixes",
        ),
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
