"""CRAFT: concepts of a layer, found in crops of images, and their importance for a score."""

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
from .._frame.spread import standard_error
from .._program.affine import is_affine
from ..features import Factors, factorize
from ..features._factors import STARTS
from ..perturbation import sobol_design, sobol_indices
from ._parts import parts

TOP = 10
# The factorization stops when ten updates lower its error by less than this fraction of the first.
TOLERANCE = 1e-4


class Craft(NamedTuple):
    """Concepts of a layer, those with the largest activation first."""

    directions: Float[Array, "concepts channels"]
    """Each concept's direction of channels, non-negative, of length one."""
    importance: Float[Array, "*k concepts"]
    """Fraction of the score's variance that involves a concept (total Sobol index), mean over the images."""
    importance_error: Float[Array, "*k concepts"]
    """Standard error of the importance over the images; NaN for one image."""
    maps: Float[Array, "batch concepts h w"]
    """Amount of each concept per position, at the layer's size."""
    error: Float[Array, ""]
    """Norm of the residual of the crops' activations, relative to their norm."""
    crops: Int[Array, "concepts top 3"]
    """The crops that show each concept most strongly: image, row and column of their upper left corner."""
    size: int
    """Side of the crops in pixels."""
    layer: str
    """The layer."""

    __repr__ = brief


@completed
def craft(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    key: jax.Array,
    num_concepts: int = 20,
    crop: int | None = None,
    steps: int = 200,
    start: str = "nndsvd",
    num_designs: int = 32,
    batch_size: int | None = None,
) -> Craft:
    """Find the concepts by which a layer represents images, and how much a score depends on each.

    Crops of the images, enlarged to the network's input and averaged over positions at the layer, are
    factorized into non-negative concepts. Each image's activations are then expressed in concepts, position
    by position, the concepts are dimmed at random, and the total Sobol index of a concept is its importance.

    Args:
        images: Images, usually of one class, model input, float [batch, height, width, channels].
        key: Typed PRNG key of a random start.
        num_concepts: Number of concepts.
        crop: Side of the crops in pixels; None is two sevenths of the image's shorter side (64 for 224). They
            are spaced by 0.8 sides.
        steps: Number of updates of each factorization, by projected gradients (`jaxai.features.factorize`);
            that of the crops stops earlier where its error no longer falls, as scikit-learn's does.
        start: Initialisation, `"nndsvd"` or `"random"`.
        num_designs: Points of the designs for the Sobol indices: num_designs (num_concepts + 2) runs of the
            layers after `layer` per image.

    Returns:
        A `Craft`; with k classes per image `importance` is [k, concepts].

    Raises:
        ValueError: If the layer has negative activations or no positions, or there are more concepts than
            crops or channels.

    References:
        Fel et al.: CRAFT: Concept Recursive Activation FacTorization for Explainability. CVPR 2023, arXiv
        2211.10154, equations 1 to 4.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3))
        >>> found = jaxai.concepts.craft(net, x, 0, layer="features", num_concepts=2, key=jax.random.key(1))
        >>> found.directions.shape, found.importance.shape, found.maps.shape
        ((2, 3), (2,), (4, 2, 8, 8))
    """
    model, images, targets = _targets.prepare(model, images, targets)
    layer = layers.resolve(model, layer, images)
    checks.choice(start, "start", STARTS)
    num_concepts, steps = checks.positive(num_concepts, "num_concepts"), checks.positive(steps, "steps")
    if checks.positive(num_designs, "num_designs") < 2:
        raise ValueError(f"`num_designs` must be at least 2; got {num_designs}")
    height, width = images.shape[1:3]
    side = max(1, round(2 / 7 * min(height, width))) if crop is None else checks.positive(crop, "crop")
    if side > min(height, width):
        raise ValueError(f"`crop` must fit into images of {height} x {width} pixels; got {side}")
    places = crop_places(len(images), height, width, side)
    size = checks.batch_size(batch_size)
    seen, least = crop_activations(
        model, images, jnp.asarray(places), layer=layer, side=side, batch_size=size
    )
    check_signs(layer, least, seen)
    found = factors(seen, "crops", num_concepts=num_concepts, key=key, steps=steps, start=start)
    best = np.argsort(-np.asarray(found.maps), axis=0, kind="stable")[:TOP].T
    masks = jnp.asarray(sobol_design(num_concepts, num_designs))
    maps, indices = importance(
        model, images, targets, found.directions, masks, layer=layer, steps=steps, batch_size=size
    )
    return Craft(
        found.directions,
        indices.mean(0),
        standard_error(indices),
        jnp.moveaxis(maps, -1, 1),
        found.error,
        jnp.asarray(places[best]),
        side,
        layer,
    )


def check_signs(layer: str, least: jax.Array, acts: jax.Array) -> None:
    """Check that a layer has no negative activations.

    Args:
        layer: Its name.
        least: The smallest activation.
        acts: Activations, whose magnitude sets the tolerance for rounding.

    Raises:
        ValueError: If the layer has negative activations.
    """
    if float(least) < -1e-6 * float(jnp.abs(acts).max()):
        raise ValueError(
            f"`layer` must have activations of at least zero, as after a ReLU; {layer!r} goes down to"
            f" {float(least):g} (for others train an autoencoder, `jaxai.concepts.sae`)"
        )


def factors(
    acts: jax.Array, rows: str, *, num_concepts: int, key: jax.Array, steps: int, start: str
) -> Factors:
    """Factorize non-negative activations into concepts.

    Args:
        acts: Activations [..., channels].
        rows: What their rows are, in the plural, for the error.
        num_concepts: Number of concepts.
        key: Typed PRNG key of a random start.
        steps: Number of updates; fewer where the error no longer falls.
        start: Initialisation.

    Returns:
        The `Factors`.

    Raises:
        ValueError: If there are more concepts than rows or channels.
    """
    count, channels = acts.size // acts.shape[-1], acts.shape[-1]
    if num_concepts > min(count, channels):
        raise ValueError(
            f"`num_concepts` must be at most {min(count, channels)}, for {count} {rows} of {channels}"
            f" channels; got {num_concepts}"
        )
    return factorize(
        acts,
        factors=num_concepts,
        key=checks.key(key),
        steps=steps,
        method="projected_gradient",
        start=start,
        tolerance=TOLERANCE,
    )


def crop_places(count: int, height: int, width: int, side: int) -> np.ndarray:
    """Return image, row and column of all crops, int32 [crops, 3]."""
    step = max(1, int(0.8 * side))
    rows, columns = (np.arange(0, length - side + 1, step) for length in (height, width))
    grid = np.stack(np.meshgrid(np.arange(count), rows, columns, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3).astype(np.int32)


def cut(images: jax.Array, places: jax.Array, side: int) -> jax.Array:
    """Return crops at places int32 [crops, 3], enlarged to the images' size."""

    def one(place):
        corner = (place[0], place[1], place[2], 0)
        part = jax.lax.dynamic_slice(images, corner, (1, side, side, images.shape[3]))[0]
        return jax.image.resize(part, images.shape[1:], method="bilinear")

    return jax.vmap(one)(places)


@partial(jax.jit, static_argnames=("layer", "side", "batch_size"))
def crop_activations(model, images, places, *, layer, side, batch_size):
    """Return the activations of crops, averaged over positions, [crops, channels], and their minimum."""

    def chunk(some):
        acts = layers.split_positions(model, layer, cut(images, some, side))[0].astype(jnp.float32)
        return acts.mean((1, 2)), acts.min((1, 2, 3))

    size = batching.chunk_size(batch_size, model, images)
    seen, least = batching.map_chunks(chunk, places, batch_size=size)
    return seen, least.min()


@partial(jax.jit, static_argnames=("layer", "steps", "batch_size"))
def importance(model, images, targets, directions, masks, *, layer, steps, batch_size):
    """Return maps of the concepts [batch, h, w, concepts], and their total indices [batch, (k), concepts]."""

    def chunk(x, t):
        acts, head = layers.split_positions(model, layer, x)
        t = t.frozen(head(acts))
        shares = parts(acts.astype(jnp.float32), directions, steps)

        def shown(mask):
            return head(((shares * mask) @ directions).astype(acts.dtype))

        together = batching.groups(batching.chunk_size(batch_size, model, acts), len(x))
        if is_affine(head, acts):
            # The scores of a sum of concepts are the sum of theirs: a pass per concept, not per mask.
            nothing = head(jnp.zeros_like(acts)).astype(jnp.float32)
            alone = (
                batching.map_chunks(jax.vmap(shown), jnp.eye(len(directions)), batch_size=together) - nothing
            )

            def masked(mask):
                return t.of(nothing + jnp.tensordot(mask, alone, 1))
        else:

            def masked(mask):
                return t.of(shown(mask))

        values = batching.map_chunks(jax.vmap(masked), masks, batch_size=together)
        return shares, sobol_indices(jnp.moveaxis(values, 0, -1), directions.shape[0])

    size = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=size)
