"""Maps of many activations: the activation atlas of many photos, the semantic dictionary of one photo."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.results import brief
from . import directions
from ._dream import identity
from ._factors import position_activations
from ._visualize import small_is_meant, visualize


class Atlas(NamedTuple):
    """A grid of synthetic images, each of the mean activation of the photos' positions in its cell."""

    images: Float[Array, "rows columns size size channels"]
    """Grey where the cell is empty."""
    counts: Int[Array, "rows columns"]
    """Number of activations in each cell."""
    directions: Float[Array, "rows columns features"]
    """The mean activation of each cell."""
    points: Float[Array, "samples 2"]
    """Position of each activation, (row, column) in [0, 1]."""
    sources: Int[Array, "samples 3"]
    """The photo, row and column from which each activation comes."""
    classes: Int[Array, "rows columns"]
    """The class that each cell supports; -1 where the cell is empty, and everywhere without classes."""

    __repr__ = brief


@completed
def atlas(
    model: Callable[..., Any],
    photos: Float[Array, "batch height width channels"],
    *,
    layer: str,
    key: jax.Array,
    grid: int | tuple[int, int] = 8,
    num_samples: int = 4,
    least: int = 1,
    size: int = 96,
    steps: int = 128,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    cosine_power: float = 1.0,
    batch_size: int | None = None,
    **options: Any,
) -> Atlas:
    """Visualize a layer's activations for many photos in a grid, with similar activations side by side.

    Activations at random positions of each photo are embedded in the plane (t-SNE), the plane is cut into
    cells, and the mean activation of each cell is visualized as a direction: icons, which may be smaller than
    a unit's receptive field.

    A cell supports the class whose score rises most when all positions of the layer hold the cell's mean
    activation rather than that of all samples; before a mean and a linear head that is the paper's
    attribution, centred. (Of tokens, those without a position stay those of the first photo.)

    Args:
        photos: Float in [0, 1]; the more, the better (thousands in the paper).
        layer: A layer with positions.
        grid: Cells along each side, or (rows, columns).
        num_samples: Positions drawn in each photo.
        least: Cells with fewer activations stay empty.
        size: Side of the images in pixels.
        steps: Steps of each.
        cosine_power: As in `directions.direction`.

    Returns:
        An `Atlas`.

    Raises:
        ValueError: If the layer has no positions, or there are fewer than four activations.

    References:
        Carter, Armstrong, Schubert, Johnson, Olah: Activation Atlas. Distill 2019 (there with UMAP and
        whitened directions).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key, photos = jax.random.key(0), jnp.linspace(0, 1, 3072).reshape(4, 16, 16, 3)
        >>> found = jaxai.atlas(net, photos, layer="blue", key=key, grid=2, size=16, steps=2)
        >>> found.images.shape, int(found.counts.sum())
        ((2, 2, 16, 16, 3), 16)
    """
    made = prepare(
        model,
        photos,
        layer=layer,
        key=key,
        grid=grid,
        num_samples=num_samples,
        least=least,
        size=size,
        steps=steps,
        normalize=normalize,
        cosine_power=cosine_power,
        batch_size=batch_size,
        **options,
    )
    return made.finish(made.draw(made.cells) if made.cells.size else ())


class Prepared(NamedTuple):
    """An atlas whose images are still to be drawn: at once, or some cells at a time, which changes none."""

    cells: np.ndarray
    """The numbers of the cells that are not empty, row by row."""
    draw: Callable[[np.ndarray], Any]
    """Returns the images of cells, given their numbers."""
    finish: Callable[[Any], Atlas]
    """Returns the atlas, given the images of all `cells`."""


def prepare(
    model,
    photos,
    *,
    layer,
    key,
    grid,
    num_samples,
    least=1,
    size,
    steps,
    normalize,
    cosine_power=1.0,
    batch_size,
    **options,
) -> Prepared:
    """Return what `atlas` with these arguments draws."""
    checks.key(key)
    rows, columns = checks.pair(grid, "grid")
    least = checks.positive(least, "least")
    acts = position_activations(model, photos, layer=layer, normalize=normalize, batch_size=batch_size)
    place, spread, paint = jax.random.split(key, 3)
    sources = _positions(place, acts.shape, checks.positive(num_samples, "num_samples"))
    chosen = acts[sources[:, 0], sources[:, 1], sources[:, 2]]
    points = _to_unit(embed(chosen, key=spread))
    cell = jnp.floor(points * jnp.array([rows, columns]) * (1 - 1e-6)).astype(jnp.int32)
    flat = cell[:, 0] * columns + cell[:, 1]
    counts = jnp.bincount(flat, length=rows * columns)
    sums = jnp.zeros((rows * columns, chosen.shape[1]), jnp.float32).at[flat].add(chosen)
    means = sums / jnp.maximum(counts, 1)[:, None]
    filled = np.flatnonzero(np.asarray(counts) >= least)
    classes = np.full(rows * columns, -1, np.int32)
    if filled.size:
        vectors = jnp.concatenate([chosen.mean(0)[None], means[filled]])
        scores = _scores(model, normalize, photos[:1], vectors, layer=layer, batch_size=batch_size)
        if scores is not None:
            classes[filled] = np.asarray((scores[1:] - scores[:1]).argmax(1))

    def draw(numbers):
        with small_is_meant():
            found = visualize(
                model,
                [directions.direction(layer, _unit(means[i]), cosine_power=cosine_power) for i in numbers],
                key=paint,
                size=size,
                steps=steps,
                normalize=normalize,
                channels=photos.shape[3],
                indices=jnp.asarray(numbers),
                batch_size=batch_size,
                **options,
            )
        return found.images

    def finish(drawn):
        images = np.full((rows * columns, size, size, photos.shape[3]), 0.5, np.float32)
        if filled.size:
            images[filled] = np.asarray(drawn)
        return Atlas(
            jnp.asarray(images.reshape(rows, columns, size, size, -1)),
            counts.reshape(rows, columns),
            means.reshape(rows, columns, -1),
            points,
            sources,
            jnp.asarray(classes.reshape(rows, columns)),
        )

    return Prepared(filled, draw, finish)


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _filled(model, normalize, photo, vectors, *, layer, batch_size):
    acts, head = layers.split_positions(model, layer, normalize(photo))

    def chunk(some):
        full = jnp.broadcast_to(some[:, None, None, None], (len(some), *acts.shape))
        return jax.vmap(head)(full.astype(acts.dtype))

    return batching.map_chunks(chunk, vectors, batch_size=batch_size)


def _scores(model, normalize, photo, vectors, *, layer, batch_size):
    """Return the scores where all positions of a layer hold one vector, or None without classes."""
    model, normalize = _targets.as_model(model), _targets.as_model(normalize or identity)
    limit = batching.chunk_size(batch_size, model, jax.eval_shape(normalize, photo), count=len(vectors))
    given = partial(_filled, layer=layer, batch_size=limit)
    shapes = jax.tree.leaves(jax.eval_shape(given, model, normalize, photo, vectors))
    if len(shapes) != 1 or shapes[0].ndim != 3 or shapes[0].shape[-1] < 2:
        return None
    return given(model, normalize, photo, vectors)[:, 0].astype(jnp.float32)


def _unit(vector):
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-9)


def _positions(key, shape, samples):
    """Return (photo, row, column) of `samples` positions of each photo, without repetition."""
    batch, height, width = shape[:3]
    samples = min(samples, height * width)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
    flat = jax.vmap(lambda k: jax.random.permutation(k, height * width)[:samples])(keys)
    photo = jnp.repeat(jnp.arange(batch), samples)
    return jnp.stack([photo, flat.reshape(-1) // width, flat.reshape(-1) % width], 1)


def _to_unit(points):
    low, high = points.min(0), points.max(0)
    return (points - low) / jnp.maximum(high - low, 1e-9)


def embed(
    points: Float[Array, "samples features"],
    *,
    key: jax.Array,
    perplexity: float = 30.0,
    steps: int = 500,
) -> Float[Array, "samples 2"]:
    """Embed points in the plane by exact t-SNE, starting from their first two principal components.

    Time and memory grow with the square of their number.

    Args:
        points: At least four.
        key: Typed key of the small noise that parts equal points.
        perplexity: Effective number of neighbours; at most a third of the points.
        steps: Number of steps, of which the first half exaggerate the neighbours' attraction.

    Raises:
        ValueError: If there are fewer than four points.

    References:
        van der Maaten, Hinton: Visualizing Data using t-SNE. JMLR 2008.
    """
    checks.key(key)
    points = jnp.asarray(points, jnp.float32)
    if points.ndim != 2 or points.shape[0] < 4:
        raise ValueError(f"`points` must be [samples, features] with four or more; got {points.shape}")
    return _embed(
        points, key, jnp.float32(min(perplexity, points.shape[0] / 3)), steps=checks.positive(steps, "steps")
    )


def _squares(x):
    norms = jnp.square(x).sum(1)
    return jnp.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)


@partial(jax.jit, static_argnames="steps")
def _embed(points, key, perplexity, *, steps):
    count = points.shape[0]
    points = points - points.mean(0)
    points = points / jnp.maximum(jnp.sqrt(jnp.square(points).sum(1).mean()), 1e-9)
    distance = _squares(points)
    others = 1 - jnp.eye(count, dtype=jnp.float32)

    def conditional(log_beta):
        logits = jnp.where(others > 0, -distance * jnp.exp(log_beta)[:, None], -jnp.inf)
        return jax.nn.softmax(logits, axis=1)

    def halve(bounds, _):
        low, high = bounds
        middle = (low + high) / 2
        p = conditional(middle)
        entropy = -(p * jnp.log(jnp.maximum(p, 1e-12))).sum(1)
        # A larger precision has a smaller entropy.
        wide = entropy > jnp.log(perplexity)
        return (jnp.where(wide, middle, low), jnp.where(wide, high, middle)), None

    bounds = (jnp.full(count, -10.0, jnp.float32), jnp.full(count, 20.0, jnp.float32))
    low, high = jax.lax.scan(halve, bounds, length=40)[0]
    p = conditional((low + high) / 2)
    p = jnp.maximum((p + p.T) / (2 * count), 1e-12) * others

    _, vectors = jnp.linalg.eigh(points.T @ points)
    start = points @ vectors[:, -2:]
    start = 1e-2 * start / jnp.maximum(start.std(0), 1e-9)
    start = start + 1e-4 * jax.random.normal(key, (count, 2), jnp.float32)
    # The largest at which the exaggerated attraction, about 48 / count for each point, is stable.
    rate = count / 30.0

    def step(state, number):
        y, speed = state
        early = number < steps // 2
        kernel = others / (1 + _squares(y))
        q = kernel / kernel.sum()
        pull = (jnp.where(early, 12.0, 1.0) * p - q) * kernel
        gradient = 4 * (pull.sum(1)[:, None] * y - pull @ y)
        speed = jnp.where(early, 0.5, 0.8) * speed - rate * gradient
        return (y + speed, speed), None

    return jax.lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(steps))[0][0]


class Dictionary(NamedTuple):
    """What a layer sees at each position of a photo."""

    images: Float[Array, "rows columns size size channels"]
    """A synthetic image of each position's activation."""
    magnitudes: Float[Array, "rows columns"]
    """Length of each activation."""
    channels: Int[Array, "rows columns top"]
    """The channels that fire most."""
    values: Float[Array, "rows columns top"]
    """Their activations."""

    __repr__ = brief


@completed
def semantic_dictionary(
    model: Callable[..., Any],
    photo: Float[Array, "height width channels"],
    *,
    layer: str,
    key: jax.Array,
    top: int = 4,
    size: int = 64,
    steps: int = 64,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    cosine_power: float = 1.0,
    batch_size: int | None = None,
    **options: Any,
) -> Dictionary:
    """Visualize the activation at each position of a photo, and name the channels that make it.

    Args:
        photo: One photo in [0, 1].
        layer: A layer with positions; each is one run.
        top: How many channels to name.
        size: Side of the images in pixels.
        steps: Steps of each.
        cosine_power: As in `directions.direction`.

    Returns:
        A `Dictionary`.

    Raises:
        ValueError: If the layer has no positions.

    References:
        Olah et al.: The Building Blocks of Interpretability. Distill 2018.
    """
    photo = jnp.asarray(photo)
    if photo.ndim != 3:
        raise ValueError(f"`photo` must be [height, width, channels]; got shape {photo.shape}")
    acts = position_activations(model, photo[None], layer=layer, normalize=normalize)[0]
    rows, columns, features = acts.shape
    with small_is_meant():
        found = visualize(
            model,
            [
                directions.direction(layer, _unit(a), cosine_power=cosine_power)
                for a in acts.reshape(-1, features)
            ],
            key=key,
            size=size,
            steps=steps,
            normalize=normalize,
            channels=photo.shape[2],
            batch_size=batch_size,
            **options,
        )
    values, channels = jax.lax.top_k(acts, min(checks.positive(top, "top"), features))
    return Dictionary(
        found.images.reshape(rows, columns, *found.images.shape[1:]),
        jnp.linalg.norm(acts, axis=-1),
        channels,
        values,
    )
