"""DeepDream: changes a photograph, or noise, to amplify a layer's activations."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float, Int

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from . import _tiles

# Above this many pixels an octave's gradient is computed in tiles, unless `tile` says otherwise.
_WHOLE = 1 << 20
_TILE = 512


@completed
def deep_dream(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    layer: str,
    key: jax.Array,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: ArrayLike = 1.5 / 255,
    jitter: int = 32,
    guide: Float[Array, "guides rows columns channels"] | None = None,
    tile: int | None = None,
    indices: Int[Array, " batch"] | Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch height width channels"]:
    """Change images step by step so that a layer's activations grow: 1/2 ||activations||^2.

    The images are processed from the smallest of several sizes (octaves) to their own; the change made at one
    size is enlarged and added at the next. Each step shifts the image at random (wrapping around), adds
    `step_size / mean|gradient| * gradient`, shifts back and clips to [0, 1]. The network runs to the layer
    and no further.

    Args:
        model: Layered model; its computation runs in the type of its own parameters.
        images: Photos, or noise (see `noise`), float in [0, 1].
        layer: Name of a layer with positions, or of any other; `model.layer_names` lists them.
        key: Typed key; image i of the batch draws its shifts from `fold_in(key, i)`.
        octaves: Number of sizes.
        octave_scale: Ratio of neighbouring sizes.
        steps: Steps at each size.
        step_size: Mean change of a pixel at each step, in units of [0, 1]; the paper's is 1.5 of 255.
        jitter: Largest shift in pixels, both ways.
        guide: Photos in [0, 1] whose features replace the norm: each position of the layer is pulled towards
            the guide's best-matching feature (largest dot product). None means no guide.
        tile: Compute gradients in tiles of this many pixels per side and shift by up to half a tile, so that
            memory does not grow with the photo. None means whole octaves up to one megapixel, tiles of 512
            above.
        indices: Numbers of the images to draw shifts for, instead of 0, 1, ...: image 5 of a batch alone is
            `deep_dream(model, images[5:6], indices=[5], ...)`.

    Returns:
        Images in [0, 1], shaped as the given ones.

    References:
        Mordvintsev, Olah, Tyka: Inceptionism: Going Deeper into Neural Networks. Google AI blog, 2015, with
        the notebook "Deep Dreams (with Caffe)", whose resizing was linear without antialiasing.

    Example:
        >>> import jax
        >>> import jaxai
        >>> net = jaxai.chain({"square": lambda x: x**2})
        >>> grey = jax.numpy.full((1, 8, 8, 3), 0.5)
        >>> dream = jaxai.deep_dream(net, grey, layer="square", key=jax.random.key(0), octaves=2, steps=3)
        >>> bool((dream > grey).all())
        True
    """
    return dream_octaves(
        *prepare(
            model,
            images,
            layer=layer,
            key=key,
            normalize=normalize,
            octaves=octaves,
            octave_scale=octave_scale,
            steps=steps,
            step_size=step_size,
            jitter=jitter,
            guide=guide,
            indices=indices,
            batch_size=batch_size,
        ),
        tile=None if tile is None else checks.positive(tile, "tile"),
    )


class Prepared(NamedTuple):
    """The checked arguments of a dream, for `dream_octaves`."""

    step: Callable[..., jax.Array]
    images: jax.Array
    keys: jax.Array
    sizes: list[tuple[int, int]]


def prepare(
    model: Any,
    images: Any,
    *,
    layer: str,
    key: jax.Array,
    normalize: Any,
    octaves: int,
    octave_scale: float,
    steps: int,
    step_size: ArrayLike,
    jitter: int,
    guide: Any = None,
    indices: Any = None,
    batch_size: int | None = None,
) -> Prepared:
    """Check the arguments of `deep_dream`, so that callers can watch its octaves."""
    model, images = _targets.as_model(model), checks.images(images)
    normalize = _targets.as_model(normalize or identity)
    checks.key(key)
    layer = layers.resolve(model, _required(layer), images)
    sizes = octave_sizes((images.shape[1], images.shape[2]), octaves, octave_scale)
    steps = checks.positive(steps, "steps")
    jitter = checks.at_least(jitter, "jitter", 0)
    batch_size = batching.chunk_size(batch_size, model, images)
    keys = run_keys(key, indices, images.shape[0])
    features = None if guide is None else _guide_features(model, normalize, guide, layer)
    step = partial(
        octave_steps,
        model,
        normalize,
        features=features,
        step_size=jnp.asarray(step_size, jnp.float32),
        layer=layer,
        steps=steps,
        jitter=jitter,
        batch_size=batch_size,
    )
    return Prepared(step, images, keys, sizes)


def dream_octaves(
    step: Callable[..., jax.Array],
    images: jax.Array,
    keys: jax.Array,
    sizes: Sequence[tuple[int, int]],
    *,
    tile: int | None = None,
) -> jax.Array:
    """Dream at each size from the smallest, passing the change on: `step(images, keys, tile=...)`."""
    smaller = [resize(images, size) for size in sizes]
    detail = jnp.zeros_like(smaller[0])
    x = images
    for octave, (base, size) in enumerate(zip(smaller, sizes, strict=True)):
        x = jnp.clip(base + resize(detail, size), 0, 1)
        octave_keys = jax.vmap(lambda k, octave=octave: jax.random.fold_in(k, octave))(keys)
        x = step(x, octave_keys, tile=_tile(size, tile))
        detail = x - base
    return x


def noise(
    key: jax.Array, shape: tuple[int, int, int, int], *, amplitude: float = 0.1
) -> Float[Array, "batch height width channels"]:
    """Return grey images with uniform noise, for dreams without a photo.

    Args:
        key: Typed key; image i is drawn from `fold_in(key, i)`.
        shape: Batch, height, width, channels.
        amplitude: Largest distance of a pixel from 0.5, at most 0.5.
    """
    checks.key(key)
    if not 0 <= amplitude <= 0.5:
        raise ValueError(f"`amplitude` must lie in [0, 0.5]; got {amplitude!r}")
    keys = run_keys(key, None, shape[0])
    return jax.vmap(
        lambda k: jax.random.uniform(k, shape[1:], jnp.float32, 0.5 - amplitude, 0.5 + amplitude)
    )(keys)


def identity(x: jax.Array) -> jax.Array:
    """Return `x`: the normalisation of a model that takes photos in [0, 1]."""
    return x


def octave_sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes (rows, columns) of the octaves, smallest first, `size` last."""
    octaves = checks.positive(octaves, "octaves")
    if not scale > 1:
        raise ValueError(f"`octave_scale` must be greater than 1; got {scale!r}")
    sizes = [tuple(max(1, round(n / scale**i)) for n in size) for i in reversed(range(octaves))]
    return [(rows, columns) for rows, columns in sizes]


def resize(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize images to `size` (rows, columns), linear between half-pixel centres, antialiased."""
    if images.shape[1:3] == tuple(size):
        return images
    shape = (images.shape[0], *size, images.shape[3])
    return jax.image.resize(images, shape, method="linear")


def run_keys(key: jax.Array, indices: Any, count: int) -> jax.Array:
    """Return one key for each run, folded from the runs' numbers; None means 0, 1, ..., count - 1."""
    numbers = jnp.arange(count) if indices is None else jnp.asarray(indices)
    if numbers.shape != (count,) or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise ValueError(
            f"`indices` must be int[{count}], one for each run; got {numbers.dtype}{list(numbers.shape)}"
        )
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)


def roll_each(images: jax.Array, shifts: jax.Array) -> jax.Array:
    """Shift each image by its own (rows, columns), wrapping around."""
    # One image at a time: a dynamic slice is a copy, while a batched one is a gather.
    return jax.lax.map(lambda pair: jnp.roll(pair[0], pair[1], (0, 1)), (images, shifts))


def model_dtype(model: Any) -> jnp.dtype | None:
    """Return the type in which a model computes: that of its parameters, None if it has none or several."""
    kinds = {leaf.dtype for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype")}
    kinds = {kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)}
    return kinds.pop() if len(kinds) == 1 else None


def activations(model: Any, normalize: Any, images: jax.Array, layer: str) -> jax.Array:
    """Return a layer's activations of photos in [0, 1], channels last; the network runs to the layer."""
    x = normalize(images)
    kind = model_dtype(model)
    x = x if kind is None else x.astype(kind)
    return layers.channels_last(model, layer, x, layers.split(model, layer, x)[0])


def _required(layer: Any) -> str:
    if layer is None:
        raise TypeError("`layer` must be a layer's name; got None")
    return layer


def _tile(size: tuple[int, int], tile: int | None) -> int | None:
    if tile is None:
        return _TILE if math.prod(size) > _WHOLE else None
    return tile if tile < max(size) else None


@partial(jax.jit, static_argnames=("layer",))
def _features(model, normalize, guide, *, layer):
    acts = activations(model, normalize, guide, layer)
    return acts.reshape(-1, acts.shape[-1]).astype(jnp.float32)


def _guide_features(model, normalize, guide, layer):
    return _features(model, normalize, checks.images(guide, "guide"), layer=layer)


def _dream_objective(model, normalize, features, layer, x):
    acts = activations(model, normalize, x, layer).astype(jnp.float32)
    if features is None:
        return 0.5 * jnp.square(acts).reshape(x.shape[0], -1).sum(1)
    rows = acts.reshape(x.shape[0], -1, acts.shape[-1])
    best = jnp.argmax(rows @ features.T, axis=-1)
    return jnp.sum(rows * features[best], axis=(1, 2))


@partial(jax.jit, static_argnames=("layer", "steps", "jitter", "tile", "batch_size"))
def octave_steps(
    model, normalize, images, keys, *, features, step_size, layer, steps, jitter, tile, batch_size
):
    """Take `steps` steps at one size."""
    objective = Partial(_dream_objective, model, normalize, features, layer)
    reach = jitter if tile is None else max(jitter, tile // 2)

    def chunk(arguments):
        x, keys = arguments

        def step(x, number):
            draw = jax.vmap(
                lambda k: jax.random.randint(
                    jax.random.fold_in(k, number), (2,), -reach, reach + 1, jnp.int32
                )
            )
            shifts = draw(keys)
            rolled = roll_each(x, shifts)
            if tile is None:
                gradient = jax.grad(lambda x: objective(x).sum())(rolled)
            else:
                gradient = _tiles.gradient(objective, rolled, tile)
            gradient = roll_each(gradient, -shifts)
            mean = jnp.abs(gradient).mean((1, 2, 3), keepdims=True)
            # A flat objective takes no step.
            rate = jnp.where(mean > 0, step_size / jnp.where(mean > 0, mean, 1), 0)
            return jnp.clip(x + (rate * gradient).astype(x.dtype), 0, 1), None

        return jax.lax.scan(step, x, jnp.arange(steps))[0]

    return batching.map_chunks(chunk, (images, keys), batch_size=batch_size)
