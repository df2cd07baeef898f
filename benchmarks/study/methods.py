"""The methods of the study: each that describes itself, with its main alternatives and its settings."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxai
from jaxai import maps
from jaxai._frame import describe
from jaxai._frame.targets import Target
from jaxai.metrics import _methods

KEY = jax.random.key(20)
# The grid that stands for superpixels of images that are smaller than photographs.
GRID = 8
_SLIC = 40


@dataclass(frozen=True)
class Entry:
    """A method as the study runs it.

    Attributes:
        run: `run(model, images, targets) -> maps`.
        passes: What explaining an image costs, as `jaxai methods` counts.
        about: Forward passes, a backward pass counting as two.
        family: The function's namespace.
    """

    run: Callable[..., Any]
    passes: str
    about: float
    family: str


# What the study takes instead of the defaults, so that it ends: fewer draws, steps and masks.
FEWER: dict[str, dict[str, Any]] = {
    "blur_integrated_gradients": {"steps": 20},
    "conductance": {"steps": 20},
    "exact_shapley": {},
    "expected_gradients": {"num_samples": 20},
    "extremal_perturbation": {"steps": 60},
    "gradient_shap": {"num_samples": 20},
    "guided_integrated_gradients": {"steps": 20},
    "hsic": {"num_designs": 200},
    "integrated_gradients": {"steps": 20},
    "internal_influence": {"steps": 20},
    "is_cam": {"num_samples": 3},
    "kernel_shap": {"num_samples": 256},
    "layer_integrated_gradients": {"steps": 20},
    "lime": {"num_samples": 256},
    "meaningful_perturbation": {"steps": 60},
    "permutation_shapley": {"num_permutations": 4},
    "rise": {"num_masks": 400},
    "smooth_grad": {"num_samples": 20},
    "smooth_grad_squared": {"num_samples": 20},
    "sobol": {"num_designs": 4},
    "ss_cam": {"num_samples": 3},
    "var_grad": {"num_samples": 20},
    "xrai": {"steps": 20},
}
# Lengths in pixels that are made for 224 x 224 pixels, for 32 x 32.
SMALL: dict[str, dict[str, Any]] = {
    "blur_integrated_gradients": {"max_sigma": 8.0},
    "extremal_perturbation": {"stride": 2, "sigma": 3.0, "jitter": 2},
    "meaningful_perturbation": {"grid": 8, "jitter": 1},
    "occlusion": {"window": (6, 6), "strides": (2, 2)},
    "xrai": {"min_pixels": 8},
}
# Options that make another method of it, beside the default: name, method, options.
ALTERNATIVES = (
    ("LRP, epsilon plus", "lrp", {"composite": "epsilon_plus"}),
    ("LRP, alpha 2 beta 1", "lrp", {"composite": "epsilon_alpha2_beta1"}),
    ("LRP, gamma box", "lrp", {"composite": "epsilon_gamma_box", "low": -1.0, "high": 1.0}),
    ("layer gradients x activation", "layer_gradients", {"times_activation": True}),
    ("Grad-CAM, signed", "grad_cam", {"relu": False}),
    ("HiResCAM, signed", "hires_cam", {"relu": False}),
    ("occlusion, blur", "occlusion", {"fill": "blur"}),
    ("RISE, blur", "rise", {"fill": "blur"}),
    ("LIME, grey", "lime", {"fill": 0.0}),
    ("kernel SHAP, segment means", "kernel_shap", {"fill": "mean"}),
)
# Methods whose signed sum over channels is usually shown as the sum of magnitudes.
MAGNITUDES = (
    "saliency",
    "smooth_grad",
    "guided_backprop",
    "deconvnet",
    "input_x_gradient",
    "integrated_gradients",
)
LEFT_OUT = ("full_gradients", "grad_cam_all_classes", "feature_permutation")


# Methods for transformers: name, function, options, passes, and about how many.
ATTENTION: tuple[tuple[str, Callable[..., Any], dict[str, Any], str, float], ...] = (
    ("gradient attention", jaxai.attention.gradient_attention, {}, "1 + 1 backward", 3),
    ("LeGrad", jaxai.attention.legrad, {}, "1 + 1 backward", 3),
    ("attention rollout", jaxai.attention.rollout, {}, "1", 1),
    ("LRP, AttnLRP", jaxai.lrp, {"composite": "attn_lrp"}, "2 + 1 backward", 4),
    ("LRP, CP-LRP", jaxai.lrp, {"composite": "cp_lrp"}, "2 + 1 backward", 4),
)


def entries(side: int, *, defaults: bool = False, transformer: bool = False) -> dict[str, Entry]:
    """Return the methods for images of a size, by title.

    Args:
        side: Pixels.
        defaults: With the defaults of all methods instead of `FEWER`.
        transformer: With the methods for transformers.
    """
    found = {}
    table = describe.table()
    for name, description in table.items():
        if name not in LEFT_OUT and name != "layer_gradients":
            found[description.title] = _entry(description, side, {}, defaults)
    for title, name, options in ALTERNATIVES:
        found[title] = _entry(table[name], side, options, defaults)
    for name in MAGNITUDES:
        plain = found[table[name].title]
        run = partial(_magnitude, plain.run)
        found[f"|{table[name].title}|"] = Entry(run, plain.passes, plain.about, plain.family)
    for title, function, options, passes, about in ATTENTION if transformer else ():
        run = partial(_run, function, ("model", "images", "targets", *options), False, options)
        found[title] = Entry(run, passes, about, "attention")
    return found


def _entry(description, side, options, defaults):
    name = description.name
    given = {} if defaults else dict(FEWER.get(name, {}))
    if side < 100:
        given |= SMALL.get(name, {})
    given |= options
    if "key" in description.parameters:
        given["key"] = KEY
    cells = GRID**2 if side < 100 else _SLIC
    sizes = {"height": side, "width": side, "targets": 1, "channels": 1280, "positions": 49, "layers": 5}
    if side < 100:
        sizes |= {"channels": 32, "positions": (side // 4) ** 2}
    sizes |= {"segments": 9 if name == "exact_shapley" else cells, "num_baselines": 8}
    cost = description.passes(**sizes, **given)
    about = cost.forward + 2 * cost.backward + 0.1 * cost.heads
    taken = tuple(description.parameters)
    run = partial(_run, description.function, taken, name == "exact_shapley", given)
    return Entry(run, str(cost), float(about), description.family)


def _run(function, taken, few, options, model, images, targets):
    made = {}
    if "segments" in taken:
        made["segments"] = _segments(images, 3 if few else None)
    if "baselines" in taken:
        made["baselines"] = plain_colours(images)
    if "maps" in taken:
        made["maps"] = jnp.abs(jaxai.saliency(model, images, targets).mean(-1))
    given = {"model": model, "images": images, "targets": targets, **made, **options}
    found = function(**{name: value for name, value in given.items() if name in taken})
    return getattr(found, "heatmap", found)


def _magnitude(run, model, images, targets):
    return maps.magnitude(run(model, images, targets), method="sum_abs")


def maps_for(method: Callable[..., Any], model: Any, images: jax.Array, classes: Any) -> jax.Array:
    """Return a method's maps of one class an image in the images' size, all images at once."""
    target = Target().of_classes(jnp.asarray(classes))
    values = _methods.maps_of(method, model, images, target, len(images))
    return values if values.shape[1:] == images.shape[1:3] else maps.upsample(values, images.shape[1:3])


def plain_colours(images: jax.Array) -> jax.Array:
    """Return images of one colour each, the corners of the colour cube from -1 to 1."""
    corners = jnp.array(list(itertools.product((-1.0, 1.0), repeat=images.shape[-1])))
    return jnp.broadcast_to(corners[:, None, None, :], (len(corners), *images.shape[1:]))


_CUT: dict[tuple, np.ndarray] = {}


def _segments(images, rows):
    """Return superpixels: a grid where images are small or `rows` is given, else SLIC."""
    side = images.shape[1]
    if rows or side < 100:
        rows = rows or GRID
        return jaxai.segment(jnp.zeros((1, side, side, 3)), method="grid", rows=rows, columns=rows)[0]
    photos = np.clip((np.asarray(images) + 1) / 2, 0, 1)
    cut = []
    for photo in photos:
        key = (photo.shape, hash(photo.tobytes()))
        if key not in _CUT:
            _CUT[key] = np.asarray(jaxai.segment(photo[None], method="slic", n_segments=_SLIC))[0]
        cut.append(_CUT[key])
    return jnp.asarray(np.stack(cut))
