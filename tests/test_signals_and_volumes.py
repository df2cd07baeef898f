"""Signals [batch, time, channels] and volumes [batch, depth, height, width, channels], for all methods."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai._frame import describe

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SHAPES = {"signals": (12, 2), "volumes": (3, 4, 5, 2)}
KERNELS = {
    "signals": jnp.asarray(RNG.normal(size=(3, 2, 6)), "float32"),
    "volumes": jnp.asarray(RNG.normal(size=(2, 3, 3, 2, 6)), "float32"),
}
HEAD = jnp.asarray(RNG.normal(size=(6, 5)), "float32")
DIMENSIONS = {"signals": ("NWC", "WIO", "NWC"), "volumes": ("NDHWC", "DHWIO", "NDHWC")}
INPUTS = {kind: jnp.asarray(RNG.normal(size=(2, *shape)), "float32") for kind, shape in SHAPES.items()}
BASELINES = {kind: jnp.asarray(RNG.normal(size=(3, *shape)), "float32") for kind, shape in SHAPES.items()}
LABELS = {
    "signals": jnp.arange(12) // 3,
    "volumes": jnp.arange(3)[:, None, None] + 3 * (jnp.arange(5) > 2) + jnp.zeros((3, 4, 5), jnp.int32),
}
# The same as an image: a row, and slices below each other.
PLANES = {"signals": (1, 12, 2), "volumes": (12, 5, 2)}


def network(kind, kernels, x):
    y = jax.lax.conv_general_dilated(
        x, kernels[0], (1,) * (x.ndim - 2), "SAME", dimension_numbers=DIMENSIONS[kind]
    )
    return jax.nn.relu(y).mean(tuple(range(1, x.ndim - 1))) @ kernels[1]


def model(kind):
    return Partial(partial(network, kind), (KERNELS[kind], HEAD))


def of_planes(kind):
    def run(kernels, x):
        return network(kind, kernels, x.reshape(-1, *SHAPES[kind]))

    return Partial(run, (KERNELS[kind], HEAD))


NOISY = {"key": KEY, "num_samples": 4}
DRAWN = {"key": KEY, "num_samples": 24}
# Methods with what they need; "baselines" and "segments" of the kind.
PIXELS = {
    "saliency": {},
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 4, "baseline": 0.5},
    "smooth_grad": NOISY,
    "smooth_grad_squared": NOISY,
    "var_grad": NOISY,
    "gradient_shap": {**NOISY, "baselines": None},
    "expected_gradients": {**NOISY, "baselines": None},
    "lrp": {"relevance": "score"},
    "deep_lift": {"baseline": 0.5},
    "deep_lift_shap": {"baselines": None},
    "guided_backprop": {},
    "deconvnet": {},
    "excitation_backprop": {},
}
PARTS = {
    "feature_ablation": {"fill": "mean"},
    "lime": {**DRAWN, "fill": "image_mean"},
    "kernel_shap": {"key": KEY, "num_samples": 24, "fill": 0.0},
    "exact_shapley": {"fill": "mean"},
    "permutation_shapley": {"key": KEY, "num_permutations": 4},
}
MINE = {*PIXELS, *PARTS, "occlusion"}


def called(name, net, x, targets, options, kind, planes):
    options = dict(options)
    if "baselines" in options:
        options["baselines"] = BASELINES[kind].reshape(-1, *PLANES[kind]) if planes else BASELINES[kind]
    if name in PARTS:
        options["segments"] = LABELS[kind].reshape(PLANES[kind][:-1]) if planes else LABELS[kind]
    return getattr(jaxai, name)(net, x, targets, **options)


CASES = [
    pytest.param(
        name, kind, marks=() if (name, kind) == ("integrated_gradients", "volumes") else pytest.mark.slow
    )
    for name, kind in itertools.product({**PIXELS, **PARTS}, SHAPES)
]


@pytest.mark.parametrize("name, kind", CASES)
def test_values_are_those_of_the_same_numbers_in_a_plane(name, kind):
    x, targets = INPUTS[kind], jnp.asarray([[0, 3], [2, 1]])
    options = {**PIXELS, **PARTS}[name]
    found = called(name, model(kind), x, targets, options, kind, False)
    flat = x.reshape(2, *PLANES[kind])
    wanted = called(name, of_planes(kind), flat, targets, options, kind, True)
    if name in PARTS:
        assert found.heatmap.shape == (2, 2, *SHAPES[kind][:-1])
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            close(ours.reshape(theirs.shape), theirs)
    else:
        assert found.shape == (2, 2, *SHAPES[kind])
        close(found.reshape(wanted.shape), wanted)


def test_gradients_are_those_of_jax():
    for kind, x in INPUTS.items():
        net = model(kind)
        wanted = jax.grad(lambda x, net=net: net(x)[:, 3].sum())(x)
        close(jaxai.saliency(net, x, 3), wanted)


@pytest.mark.slow
def test_relevance_and_paths_add_up():
    for kind, x in INPUTS.items():
        scores = model(kind)(x)[:, 1]
        places = tuple(range(1, x.ndim))
        epsilon = jaxai.rules.Composite(conv=jaxai.rules.Epsilon(1e-9), dense=jaxai.rules.Epsilon(1e-9))
        relevance = jaxai.lrp(model(kind), x, 1, composite=epsilon, relevance="score")
        close(relevance.sum(places), scores, 1e-4)
        lifted = jaxai.deep_lift(model(kind), x, 1)
        close(lifted.sum(places), scores - model(kind)(0 * x)[:, 1], 1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "kind, window, strides", [("volumes", (2, 3, 2), (1, 2, 3)), ("signals", 4, 3), ("signals", (5,), (5,))]
)
def test_occlusion_is_the_mean_drop_of_all_windows(kind, window, strides):
    """Each window by itself, in NumPy."""
    x, size = INPUTS[kind], SHAPES[kind][:-1]
    sizes = window if isinstance(window, tuple) else (window,)
    steps = strides if isinstance(strides, tuple) else (strides,)
    starts = [range(0, -(-(s - w) // t) * t + 1, t) for s, w, t in zip(size, sizes, steps, strict=True)]
    whole = np.asarray(model(kind)(x))[:, 2]
    total, count = np.zeros((2, *size)), np.zeros(size)
    for corner in itertools.product(*starts):
        inside = tuple(slice(a, a + w) for a, w in zip(corner, sizes, strict=True))
        covered = np.array(x)
        covered[(slice(None), *inside)] = 0.25
        drop = whole - np.asarray(model(kind)(jnp.asarray(covered)))[:, 2]
        total[(slice(None), *inside)] += drop.reshape(-1, *(1,) * len(size))
        count[inside] += 1
    found = jaxai.occlusion(model(kind), x, 2, window=window, strides=strides, fill=0.25)
    close(found, total / np.maximum(count, 1))


@pytest.mark.parametrize("kind", SHAPES)
def test_other_methods_say_that_they_need_a_plane(kind):
    others = [n for n, d in describe.table().items() if "targets" in d.parameters and n not in MINE]
    assert {"grad_cam", "rise", "xrai", "full_grad", "blur_integrated_gradients"} <= {*others}
    net = jaxai.chain({"features": jnp.tanh, "logits": model(kind)})
    for name in others:
        parameters = describe.table()[name].parameters
        options = {"key": KEY} if "key" in parameters else {}
        options |= {"segments": LABELS[kind]} if "segments" in parameters else {}
        options |= {"names": ("features",)} if "names" in parameters else {}
        with pytest.raises(
            (ValueError, TypeError), match=r"must be \[batch, height, width, channels\]"
        ) as seen:
            getattr(jaxai, name)(net, INPUTS[kind], 1, **options)
        assert "\n" not in str(seen.value), name


def test_mistakes():
    signals, volumes = INPUTS["signals"], INPUTS["volumes"]
    with pytest.raises(ValueError, match=r"signals are \[batch, time, channels\]"):
        jaxai.saliency(model("signals"), signals[0], 1)
    # An image without its batch looks like signals.
    net = lambda x: x.mean((1, 2)) + jax.lax.expand_dims(x.sum((1, 2, 3)), [1])  # noqa: E731
    with pytest.raises(
        ValueError, match=r"got shape \(8, 8, 3\); signals are .*, which the model does not take"
    ):
        jaxai.saliency(net, jnp.ones((8, 8, 3)), 1)
    with pytest.raises(ValueError, match="Signals and volumes have no plane to draw on; gradients"):
        jaxai.grad_cam(model("signals"), signals, 1)
    with pytest.raises(ValueError, match="`window` must be an integer or one in brackets; got"):
        jaxai.occlusion(model("signals"), signals, 1, window=(3, 3))
    with pytest.raises(ValueError, match=r"an integer or \(depth, rows, columns\); got \(3, 3\)"):
        jaxai.occlusion(model("volumes"), volumes, 1, window=(3, 3))
    with pytest.raises(ValueError, match="`window` must not exceed the image, 12; got"):
        jaxai.occlusion(model("signals"), signals, 1, window=13, strides=1)
    with pytest.raises(ValueError, match=r"`segments` must have shape \(2, 12\) or \(12,\)"):
        jaxai.feature_ablation(model("signals"), signals, 1, segments=LABELS["signals"][None, None])
    with pytest.raises(ValueError, match="`fill='blur'` needs images"):
        jaxai.feature_ablation(model("signals"), signals, 1, segments=LABELS["signals"], fill="blur")
