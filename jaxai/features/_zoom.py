"""Endless zooms: each frame is the previous one, slightly enlarged and dreamt further."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import layers
from .._frame import checks
from .._frame import targets as _targets
from .._frame.contract import completed
from ._dream import dream_octaves, identity, octave_sizes, octave_steps
from .transforms import Draw, Transforms, apply

# Bounds of rotation and shrinking per frame.
_MOST = 45.0
_LEAST = 0.5
_MOVES = Transforms(scales=(_LEAST,), angles=(-_MOST, _MOST))


@completed
def dream_zoom(
    model: Callable[..., Any],
    image: Float[Array, "height width channels"],
    *,
    layer: str,
    key: jax.Array,
    frames: int,
    zoom: float = 1.05,
    rotate: float = 0.0,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    octaves: int = 2,
    octave_scale: float = 1.4,
    steps: int = 4,
    step_size: ArrayLike = 1.5 / 255,
    jitter: int = 32,
) -> Float[Array, "frames height width channels"]:
    """Return the frames of an endless zoom into a dream, computed in one compiled loop.

    Each frame enlarges the last around its centre, turns it, and takes `steps` dream steps at each octave.
    Frames are float in [0, 1]: `(255 * frames).round().astype(uint8)` is what writers of GIF and MP4 take.

    Args:
        image: The photo, or noise, to start from, in [0, 1]; the first frame is dreamt from it unzoomed.
        key: Typed key; frame i draws from `fold_in(key, i)`.
        frames: How many.
        zoom: Magnification from frame to frame, at least 0.5; below one it shrinks, with grey around.
        rotate: Degrees from frame to frame, at most 45 either way.
        octaves: Number of sizes.
        octave_scale: Ratio of one size to the next smaller.
        steps: Steps at each size.
        step_size: Mean change of a pixel at each step.
        jitter: Largest shift in pixels, both ways.

    Returns:
        [frames, height, width, channels].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key, photos = jax.random.key(0), jnp.full((1, 16, 16, 3), 0.5)
        >>> jaxai.dream_zoom(net, photos[0], layer="blue", key=key, frames=3, octaves=1, steps=1).shape
        (3, 16, 16, 3)
    """
    checks.key(key)
    image = jnp.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"`image` must be [height, width, channels]; got shape {image.shape}")
    image = checks.images(image[None], "image")
    model = _targets.as_model(model)
    layer = layers.resolve(model, layer, image)
    if not (zoom >= _LEAST and abs(rotate) <= _MOST):
        raise ValueError(
            f"`zoom` must be at least {_LEAST}, `rotate` within {_MOST} degrees; got {zoom!r}, {rotate!r}"
        )
    sizes = octave_sizes((image.shape[1], image.shape[2]), octaves, octave_scale)
    return _film(
        model,
        _targets.as_model(normalize or identity),
        image,
        key,
        jnp.float32(zoom),
        jnp.deg2rad(jnp.float32(rotate)),
        jnp.asarray(step_size, jnp.float32),
        layer=layer,
        frames=checks.positive(frames, "frames"),
        sizes=tuple(sizes),
        steps=checks.positive(steps, "steps"),
        jitter=jitter,
    )


@partial(jax.jit, static_argnames=("layer", "frames", "sizes", "steps", "jitter"))
def _film(model, normalize, image, key, zoom, angle, step_size, *, layer, frames, sizes, steps, jitter):
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])]) / zoom
    move = Draw(
        matrix[None],
        jnp.zeros((1, 2), jnp.float32),
        jnp.zeros(1, jnp.float32),
        jnp.zeros((1, 3), jnp.float32),
        key[None],
    )
    step = partial(
        octave_steps,
        model,
        normalize,
        features=None,
        step_size=step_size,
        layer=layer,
        steps=steps,
        jitter=jitter,
        batch_size=1,
    )

    def frame(x, number):
        x = dream_octaves(step, x, jax.random.fold_in(key, number)[None], sizes)
        return apply(_MOVES, move, x), x[0]

    return jax.lax.scan(frame, image, jnp.arange(frames))[1]
