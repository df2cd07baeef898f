"""Every public method that explains targets, with small settings, for tests that go over all of them."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxai
from jaxai._frame import describe

KEY = jax.random.key(0)
SIZE = (6, 8)
NOISY = {"key": KEY, "num_samples": 3}


def _gap(model, images, targets=None):
    """Completeness gaps of one step of integrated gradients."""
    found = jaxai.integrated_gradients(model, images, targets, steps=2)
    return jaxai.completeness_gap(model, images, targets, attributions=found)


def quarters(size):
    """Four segments of images of this size."""
    height, width = size
    return np.arange(height)[:, None] // (height // 2) * 2 + np.arange(width)[None] // (width // 2)


def _xrai(model, images, targets=None):
    # Signals and volumes are refused whatever the regions.
    cut = quarters(images.shape[1:3] if images.ndim == 4 else SIZE)
    overlapping = jnp.stack([cut < 2, cut % 2 == 0, cut > 0])
    regions = jnp.broadcast_to(overlapping, (len(images), *overlapping.shape))
    return jaxai.xrai(model, images, targets, regions=regions, steps=2, min_pixels=1)


# Options that make any method small, by name; those that depend on the images are functions of their shape.
SMALL = {
    "baselines": lambda shape: jnp.asarray(np.random.default_rng(8).normal(size=shape), "float32"),
    "grid": 2,
    "jitter": 1,
    "max_sigma": 2.0,
    "names": ("conv1", "conv2"),
    "num_designs": 8,
    "num_masks": 16,
    "num_permutations": 2,
    "num_samples": 3,
    "num_segments": 4,
    "segments": lambda shape: quarters(shape[1:3]),
    # Wide smoothing leaves nothing of six by eight pixels.
    "sigma": 1.0,
    "steps": 3,
    "stride": lambda shape: max(2, shape[1] // 16),
    "strides": lambda shape: max(3, shape[1] // 16),
    # The default is neither a score nor a probability.
    "utility": "probability",
    "window": lambda shape: max(3, shape[1] // 16),
}
OWN = {
    "kernel_shap": {"num_samples": 14},
    "lime": {"num_samples": 16, "key": KEY},
}


def _small(description, shape):
    """Return a method with small options: a new one is in every test by itself."""
    taken = {
        name: value(shape) if callable(value) else value
        for name, value in SMALL.items()
        if name in description.parameters
    }
    key = description.parameters.get("key")
    if key is not None and key.default is key.empty:
        taken["key"] = KEY
    options = {**taken, **OWN.get(description.name, {})}
    return partial(description.function, **options) if options else description.function


def _explaining(kind, shape=(2, *SIZE, 3)):
    """Return the methods that explain this of a class: its score, its probability, or nothing of it."""
    return {
        name: _small(description, shape)
        for name, description in sorted(describe.table().items())
        if "targets" in description.parameters and description.explains == kind
    }


_MORE = {
    "completeness_gap": _gap,
    "smooth": partial(jaxai.gradients.smooth, jaxai.saliency, **NOISY),
    "smooth_moments": partial(jaxai.gradients.smooth_moments, jaxai.saliency, **NOISY),
    "xrai": _xrai,
}
SCORE = {**_explaining("score"), **_MORE}
PROBABILITY = {**_explaining("probability"), "shapley_cam": SCORE.pop("shapley_cam")}
NOTHING = _explaining("nothing")
METHODS = {**SCORE, **PROBABILITY, **NOTHING}


def _dropped(model, images, targets=None):
    """Quarters of the images, hidden by leaving out their tokens."""
    dropping, seen = jaxai.attention.drop_tokens(model, images)
    return jaxai.feature_ablation(dropping, seen, targets, segments=quarters(images.shape[1:3]))


# For transformers; other networks are refused.
ATTENTION = {name: getattr(jaxai.attention, name) for name in jaxai.attention.__all__} | {
    "bidirectional": partial(jaxai.attention.bidirectional, steps=3),
    "drop_tokens": _dropped,
}


def of_shape(shape):
    """Return all methods with small options for images of this shape, those for transformers too."""
    kinds = ("score", "probability", "nothing")
    plain = {name: method for kind in kinds for name, method in _explaining(kind, shape).items()}
    return plain | _MORE | ATTENTION


def explaining():
    """The names of all public functions that take a model, images and targets."""
    for module in (jaxai, jaxai.cam, jaxai.gradients, jaxai.rules, jaxai.perturbation):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and {"model", "images", "targets"} <= {
                *inspect.signature(function).parameters
            }:
                yield name


def arrays(result):
    """Return what a method found as arrays, without segments, masks and targets."""
    for name in ("weights", "values"):
        if hasattr(result, name) and not isinstance(result, jax.Array):
            return [getattr(result, name)]
    return jax.tree.leaves(result)
