"""What the command answers without JAX: help, listings, completion, and the file that they are read from."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxai.cli import completion, facts, help_pages

ASK = "jaxai.cli.facts has changed parts: run `python -m jaxai.cli.facts`"


@pytest.fixture(scope="module")
def made():
    return facts.made(["vgg16_features", "vgg16_brain_mri"])


@pytest.mark.parametrize("part", [name for name in facts.read() if name != "models"])
def test_what_is_written_down_is_what_the_parts_say(made, part):
    assert facts.read()[part] == json.loads(json.dumps(made[part])), ASK


def test_networks_are_what_is_written_down(made):
    from jaxai.models import zoo

    written = facts.read()["models"]
    assert list(written) == list(zoo.ZOO), ASK
    for name, known in made["models"].items():
        assert written[name] == known, ASK
    assert list(facts.layers_of("vgg16"))[-3:] == ["fc6", "fc7", "logits"]


@pytest.mark.slow
def test_all_networks_are_what_is_written_down():
    import jax

    from jaxai.models import labels, parameters, zoo

    imagenet = list(labels.imagenet())
    for name, known in zoo.ZOO.items():
        written, network = facts.read()["models"][name], parameters.abstract(known.make)
        count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network))
        assert (written["input"], written["parameters"]) == (known.input_size, count), ASK
        assert written["source"] == str(known.source or "your own file"), ASK
        layers = [layer for layer in facts.layers_of(name) if layer != "logits"]
        # What is no chain has pools and the like between the parts that it names.
        names = getattr(network, "layer_names", None) or network.names
        shown = layers if hasattr(network, "layer_names") else [layer for layer in layers if layer in names]
        assert shown == [layer for layer in names if layer != "logits"], ASK
        assert facts.classes_of(name) == (list(known.labels()) if known.labels else []), ASK
        assert written["classes"] != imagenet


QUICK = [["--help"], ["--version"], ["methods"], ["methods", "lime"], ["models"], ["layers", "vgg16"]]
QUICK += [[*name.split(), "--help"] for name in facts.read()["commands"]]


def test_quick_answers_do_without_jax():
    code = f"""
import sys
from jaxai.cli import main
for words in {QUICK!r}:
    assert main(words) == 0
    assert not {{"jax", "flax", "matplotlib", "skimage"}} & set(sys.modules), words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in (
        "explain",
        "jaxai 0",
        "grad_cam_plus_plus",
        "num_samples = 400 (of jaxai.lime: 1000)",
        "vgg16_brain_mri",
        "conv5_3",
        "jaxai dream noise --steps 20",
        "[default: grad_cam,lime]",
    ):
        assert word in done.stdout


@pytest.mark.parametrize("name", [n for n in facts.read()["commands"] if n != "dataset"])
def test_help_has_every_option_and_examples_that_are_taken(run, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, lines, errors = run(*name.split(), "-h")
    assert code == 0 and not errors and max(map(len, lines)) <= 100
    command = facts.loaded(name.split()[0])
    command = getattr(command, "commands", {}).get(name.split()[-1], command)
    text = "\n".join(lines)
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert f"{option}" in text
    examples = [line.split() for line in lines if line.startswith(f"  jaxai {name}")]
    assert len(examples) == len(help_pages.EXAMPLES[name]) > 0
    for words in examples:
        command.make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize(
    "words, name",
    [
        ("explain --help", "explain"),
        ("explain cat --scores -h", "explain"),
        ("dataset -h", "dataset"),
        ("dataset plan photos --out x --help", "dataset plan"),
        ("explain --out --help", None),
        ("explain --out=x --help", "explain"),
        ("explain -- --help", None),
        ("explain", None),
        ("nonsense --help", None),
    ],
)
def test_help_is_what_is_asked_for(words, name):
    assert help_pages.asked(words.split()) == name


def test_completion_does_without_the_parser():
    environment = {**os.environ, "_JAXAI_COMPLETE": "complete_bash", "COMP_CWORD": "4"}
    environment["COMP_WORDS"] = "jaxai explain cat --method lime,gra"
    code = """
import sys
from jaxai.cli import main
main()
assert not {"jax", "numpy", "typer", "rich"} & set(sys.modules), sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lime,grad_cam", "lime,grad_cam_plus_plus", "lime,gradient_shap"]


CASES = [
    ("", "", ["explain", "compare", "dream", "visualize", "atlas", "concepts", "models"]),
    ("", "ex", ["explain"]),
    ("explain", "roc", ["rocket"]),
    ("explain cat", "--me", ["--method"]),
    ("explain cat --method lime", "--me", []),
    ("explain cat -o lime.alpha=1", "--opt", ["--option"]),
    ("explain cat --method", "hi", ["hires_cam"]),
    ("explain cat --method", "lime,li", []),
    ("explain cat", "--method=hi", ["--method=hires_cam"]),
    ("explain cat --model", "vgg16_", ["vgg16_features", "vgg16_brain_mri", "vgg16_bn"]),
    ("explain cat --model vgg16 --layer", "conv1", ["conv1_1", "conv1_2"]),
    ("explain cat --layer", "block1", ["block1a"]),
    ("explain cat --model=net.onnx --layer", "", []),
    ("explain cat --target", "Egy", ["Egyptian_cat"]),
    ("explain cat --target", "tabby,egy", ["tabby,Egyptian_cat"]),
    ("explain cat --target", "", ["top1", "top3", "top5"]),
    ("explain cat --model hed --target", "", ["mean", "length", "like="]),
    ("explain cat --model vgg16_brain_mri --target", "g", ["glioma"]),
    ("explain cat --method occlusion -o", "", ["occlusion.window=", "occlusion.strides=", "occlusion.fill="]),
    ("explain cat -o", "lime.num_s", ["lime.num_samples="]),
    ("explain cat --segments", "s", ["slic"]),
    ("explain cat --precision", "", ["float32", "bfloat16"]),
    ("explain cat --html", "", []),
    ("explain folder/", "folder/x", []),
    ("compare cat --metric", "gi", ["gini"]),
    ("methods", "li", ["lime"]),
    ("layers", "vgg16_b", ["vgg16_brain_mri", "vgg16_bn"]),
    ("dream", "no", ["noise"]),
    ("dream cat --layer", "conv4", ["conv4_1", "conv4_2", "conv4_3"]),
    ("visualize", "resnet1", ["resnet18", "resnet101", "resnet152"]),
    ("visualize resnet18 layer1.0", "layer4.1", ["layer4.1"]),
    ("dataset", "p", ["plan", "page"]),
    ("dataset plan --metric", "gi", ["gini"]),
    ("dataset plan --method", "xr", ["xrai"]),
    ("nonsense", "x", []),
]


@pytest.mark.parametrize("before, word, expected", CASES)
def test_completions(before, word, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(completion.complete(before.split(), word))
    assert (found[: len(expected)] if word == "" else found) == expected


def test_completions_are_words_that_the_command_takes():
    from jaxai.report import _classes as classes
    from jaxai.report import _methods as methods

    labels = facts.classes_of("efficientnet_lite0")
    for first in "abcxyz":
        for word in completion.complete("explain cat --target".split(), first):
            assert classes.parse(word, labels).indices
    names = list(completion.complete("explain cat --method".split(), ""))
    assert [method.name for method in methods.choose(",".join(names), [])] == names


def test_files_stand_beside_samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats on a mat.jpg").touch()
    (tmp_path / "cathedrals").mkdir()
    (tmp_path / ".catalogue").touch()
    found = list(completion.complete(["explain"], "ca"))
    assert found == ["cat", "cathedrals/", "cats on a mat.jpg"]
    assert completion._quoted(found[-1]) == "cats\\ on\\ a\\ mat.jpg"
    assert ".catalogue" not in completion.complete(["explain"], "")
    assert completion._quoted("yellow_lady's_slipper") == "yellow_lady\\'s_slipper"


SCRIPT = """
eval "$(_JAXAI_COMPLETE=source_bash jaxai)"
COMP_WORDS=(jaxai explain cat --layer = block5) COMP_CWORD=5
_jaxai_completion jaxai
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash(tmp_path):
    command = tmp_path / "jaxai"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom jaxai.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["block5a", "block5b", "block5c"], done.stderr


@pytest.mark.parametrize(
    "words, line",
    [
        ("exlpain cat", "No such command 'exlpain'. Did you mean 'explain'?"),
        ("methods grad-kam", "unknown method 'grad-kam'; did you mean grad_cam"),
        ("layers vgg17", "unknown model 'vgg17'; did you mean vgg11"),
        ("fetch resnet5", "unknown model 'resnet5'; did you mean resnet50"),
        ("dream nois", "no such image: nois (did you mean noise?)"),
        ("explain cat --fit croop", "Invalid value for '--fit': 'croop' is not one of 'crop'"),
        (
            "explain cat -o limee.alpha=1",
            "'limee' is not among the methods grad_cam, lime; did you mean lime?",
        ),
        ("methods random_cammm", "did you mean random_cam"),
    ],
)
def test_names_that_may_be_meant(run, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(*words.split())
    assert code == 2 and len(errors) == 1 and line in errors[0], errors


@pytest.mark.slow
def test_the_command_collects_garbage_once_its_modules_are_there():
    code = """
import gc, sys
from jaxai.cli import main, session
before = gc.get_freeze_count()  # Python 3.12 starts with some.
assert main(["models"]) == 0 and gc.isenabled(), "a caller's collector is the caller's"
session.start("auto", "float32")
assert gc.get_freeze_count() == before
sys.argv[1:] = ["models"]
assert main() == 0 and not gc.isenabled()
session.start("auto", "float32")
assert gc.isenabled() and gc.get_freeze_count() > 100_000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
