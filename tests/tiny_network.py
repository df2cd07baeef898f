"""A small network in place of the real ones, so that tests of the command are quick."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxai
from jaxai.models.crop import crop
from jaxai.models.pretrained import Pretrained

SIZE = 32
LABELS = ("red", "green", "blue", "violet", "light grey")


def _features(kernel, x):
    """Means of 8 x 8 pixels, mixed."""
    pooled = x.reshape(x.shape[0], 4, 8, 4, 8, 3).mean((2, 4))
    return jnp.maximum(pooled @ kernel, 0)


def _head(kernel, x):
    return x.mean((1, 2)) @ kernel


def _identity(x):
    return x


def ramps():
    """Return a photo of 32 x 32 pixels whose channels grow downwards, across and in both directions."""
    down, across = np.mgrid[:SIZE, :SIZE] * (255 / SIZE)
    return np.stack([down, across, (down * across) % 200], -1).astype(np.uint8)


def tiny():
    """Return a network of five classes for photos of 32 x 32 pixels, as `jaxai.models.load` returns them."""
    rng = np.random.default_rng(0)
    kernels = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 6), (6, len(LABELS)))]
    model = jaxai.chain({"mixed": Partial(_features, kernels[0]), "logits": Partial(_head, kernels[1])})
    return Pretrained(
        model=model,
        name="efficientnet_lite0",
        crop=partial(crop, size=SIZE),
        normalize=_identity,
        labels=LABELS,
        input_size=SIZE,
        digest="0" * 64,
    )
