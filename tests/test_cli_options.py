"""Options of the command on a small network: what methods are given, and what is refused before any work."""

import os

import jax
import numpy as np
import pytest
from command_runs import files, photo, record
from tiny_network import SIZE

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation", "on_the_small_network")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("occlusion", "occlusion.fill=noise"),
        ("feature_ablation", "feature_ablation.fill=noise"),
        ("owen_values", "owen_values.fill=noise"),
        ("sobol", "sobol.fill=noise"),
        ("hsic", "hsic.sampler=latin_hypercube"),
        ("grad_cam", "grad_cam.upsample=False"),
    ],
)
def test_options_that_need_what_the_command_has(run, tmp_path, method, option):
    photo(tmp_path / "a.png")
    small = {
        "occlusion": ["-o", "occlusion.window=16"],
        "hsic": ["-o", "hsic.num_designs=16", "-o", "hsic.grid=2"],
    }
    small["sobol"] = ["-o", "sobol.num_designs=2", "-o", "sobol.grid=2"]
    words = ("--method", method, "--segments", "grid", "-o", option, *small.get(method, []))
    code, _, errors = run("explain", "a.png", *words)
    assert (code, errors) == (0, [])
    name, value = option.split(".")[1].split("=")
    assert str(record(tmp_path / "out")["methods"][method]["options"][name]) == value
    assert np.isfinite(np.load(tmp_path / "out/maps.npz")[method]).all()


@pytest.mark.sampled
@pytest.mark.parametrize(
    "method", ["conductance", "deep_lift_shap", "expected_gradients", "forgrad", "fused_cam"]
)
def test_methods_that_need_more_than_a_photo(run, drawn, tmp_path, small_network, method):
    photo(tmp_path / "a.png")
    small = {"conductance": "steps=4", "expected_gradients": "num_samples=4"}
    words = ["-o", f"{method}.{small[method]}"] if method in small else []
    code, _, errors = run("explain", "a.png", "--method", method, *words)
    assert (code, errors) == (0, [])
    found = np.load(tmp_path / "out/maps.npz")[method]
    assert found.shape[:2] == (SIZE, SIZE) and np.isfinite(found).all()
    assert np.ptp(found) > 0 or method == "forgrad"  # The gradient of this network has no pattern.
    if method == "deep_lift_shap":
        corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(8, 1, 1, 3)
        baselines = jax.numpy.asarray(np.broadcast_to(corners, (8, SIZE, SIZE, 3)), jax.numpy.float32)
        target = int(np.load(tmp_path / "out/maps.npz")["targets"][0])
        images = small_network.preprocess(str(tmp_path / "a.png"))
        expected = jaxai.deep_lift_shap(small_network.model, images, target, baselines=baselines)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", ""), "named by an empty word"),
        (("dream", ""), "named by an empty word"),
        (("atlas", ""), "named by an empty word"),
        (("explain", "cat", "--seed", 2**32), "4294967295"),
        (("explain", "cat", "--seed", 2**63), "4294967295"),
        (("explain", "cat", "--seed", "9" * 5000), "--seed"),
        (("explain", "cat", "--batch-size", 2**31), "2147483647"),
        (("explain", "cat", "--target", "9" * 5000), "a class from 0 to 4; got 999"),
        (("explain", "cat", "--target", "blu"), "unknown class 'blu'; did you mean blue?"),
        (("explain", "cat", "--layer", "mixd"), "unknown layer 'mixd'; did you mean mixed?"),
        (
            ("explain", "cat", "--segments", "slick"),
            "`--segments`: unknown method 'slick'; did you mean slic",
        ),
        (("explain", "cat", "--method", "gradcam"), "did you mean grad_cam"),
        (("explain", "cat", "--model", "efficientnetlite0"), "did you mean efficientnet_lite0"),
        (("explain", "rokcet"), "did you mean rocket?"),
        (("explain", "cat", "-o", "lime.tolerance=nan"), "expected a finite number"),
        (("explain", "cat", "-o", "lime.num_samples=1e3"), "expected a whole number"),
        (("explain", "cat", "--out", "dead"), "dead is a link to something that does not exist"),
        (("dream", "noise", "--out", "dead"), "dead is a link to something that does not exist"),
        (("dream", "noise", "--seed", 2**63), "4294967295"),
        (("dream", "noise", "--step-size", "nan"), "--step-size"),
        (("dream", "noise", "--step-size", "inf"), "255"),
        (("dream", "noise", "--step-size", "1e308"), "255"),
        (("dream", "noise", "--octave-scale", "inf"), "16"),
        (("dream", "noise", "--octave-scale", "nan"), "--octave-scale"),
        (("dream", "noise", "--jitter", "9" * 20), "32768"),
        (("dream", "noise", "--size", 10**9), "32768"),
        (("dream", "noise", "--steps", 2**31), "2147483647"),
        (("dream", "noise", "--layer", "mixd"), "unknown layer 'mixd'; did you mean mixed?"),
        (("visualize", "efficientnet_lite0", "mixed:9"), "channels 0 to 5; got 9"),
        (("visualize", "efficientnet_lite0", f"mixed:{'9' * 5000}"), "channels are written"),
        (("visualize", "efficientnet_lite0", "logits:top3"), "top3 depends on a photo"),
        (("visualize", "efficientnet_lite0", "mixd:1"), "did you mean mixed?"),
        (("visualize", "efficientnet_lite0", "mixed:1", "--steps", 2**31), "2147483647"),
        (("layers", "vgg16_brain"), "did you mean vgg16_brain_mri"),
        (("convert", "x.pth", "--model", "vgg61"), "unknown model 'vgg61'; did you mean vgg1"),
    ],
)
def test_what_is_refused_before_any_work(run, tmp_path, small_network, monkeypatch, words, message):
    (tmp_path / "dead").symlink_to("nowhere")
    monkeypatch.setattr(small_network.__class__, "preprocess", None)
    monkeypatch.setattr(small_network.__class__, "crop", None, raising=False)
    code, lines, errors = run(*words)
    assert (code, lines) == (2, [])
    assert len(errors) == 1 and errors[0].startswith("jaxai: error: ") and message in errors[0]
    assert len(errors[0]) <= 2000 and os.listdir(tmp_path) == ["dead"]


@pytest.mark.parametrize(
    "option",
    [
        "integrated_gradients.steps=0",
        "rise.num_masks=-3",
        "lime.num_samples=1",
        "occlusion.window=99",
        "smooth_grad.noise=-1",
        "smooth_grad.num_samples=0",
        "sobol.grid=0",
        "lime.kernel_width=-1",
    ],
)
def test_numbers_that_a_method_refuses_are_refused_before_any_work(run, tmp_path, option):
    photo(tmp_path / "a.png")
    name, number = option.partition(".")[::2]
    code, lines, errors = run("explain", "a.png", "--method", f"grad_cam,{name}", "--option", option)
    assert (code, lines) == (2, []) and files(tmp_path) == ["a.png"]
    (line,) = errors
    assert line.startswith(f"jaxai: error: {name}: `{number.partition('=')[0]}` must ")
