"""Counterfactual swaps: the fewest cells of a layer that flip the class when taken from another image."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ... import layers
from ..._frame import batching, checks
from ..._frame import targets as _targets
from ..._frame.contract import completed
from ..._frame.results import brief
from . import _decision, _search


class Swaps(NamedTuple):
    """The replaced cells of a layer, in the order of selection; -1 after the last."""

    cells: Int[Array, "batch most 2"]
    """Row and column in the image's grid."""
    sources: Int[Array, "batch most 3"]
    """Number of the distractor, row and column in its grid."""
    count: Int[Array, " batch"]
    """Number of replaced cells."""
    flipped: Bool[Array, " batch"]
    """Whether the target wins with these cells, according to the network."""
    values: Float[Array, "batch steps"]
    """The target's probability before the first swap and after each, [batch, most + 1]; for a callable, its
    value. NaN after the last."""
    classes: Int[Array, " batch"]
    """The target class; -1 for a callable target."""
    grid: tuple[int, int]
    """Rows and columns of the layer."""

    __repr__ = brief


@completed
def swap_cells(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    distractors: Float[Array, "batch *several height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    semantic_weight: float = 0.0,
    temperature: float = 0.1,
    features: Callable[..., Any] | None = None,
    keep: float = 1.0,
    max_swaps: int | None = None,
    batch_size: int | None = None,
) -> Swaps:
    r"""Find the fewest cells of a layer that make a distractor's class win when replaced by its cells.

    Each step tries all pairs of a cell of the image and a cell of the distractor, in one batched run of the
    layers after `layer`, and makes the swap with the largest value of
    $\log p_{c'}(\text{swapped}) + \lambda \log \mathrm{softmax}_j(\cos(u_i, u'_j) / \tau)$: among the swaps
    that flip, if any does. A cell is replaced once, and a distractor's cell is used once. Afterwards unneeded
    swaps are undone, so that undoing any remaining one loses the class again.

    Args:
        images: Images to change, model input, [batch, height, width, channels].
        distractors: An image of another class for each, of the same shape, or m of them [batch, m, height,
            width, channels], whose cells are all candidates.
        targets: The class c' that should win, int or int[batch]; None is the top class of the (first)
            distractor. A callable wins with a value above zero, and replaces log p.
        semantic_weight: lambda, at least 0: the weight of similarity between swapped cells.
        temperature: tau.
        features: Features for the similarity, a function of images to [batch, h, w, channels], such as a
            self-supervised network, resized to the layer's grid; None uses the layer's own activations.
        keep: Fraction of the pairs to try, those with the largest cosine, in (0, 1].
        max_swaps: Stop after this many swaps; None allows all cells.
        batch_size: At most this many swapped layers in flight; None chooses by size.

    Returns:
        A `Swaps`; `flipped` is False if the allowed swaps did not suffice.

    Raises:
        ValueError: If the distractors do not match the images, a number is out of range, or the layer has no
            positions.

    References:
        Goyal et al.: Counterfactual Visual Explanations. ICML 2019, arXiv 1904.07451, equations 1 to 5
        (greedy search of section 3.2).
        Vandenhende et al.: Making Heads or Tails: Towards Semantically Consistent Visual Counterfactuals.
        ECCV 2022, arXiv 2203.12892, equations 3 and 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"cells": lambda x: x, "logits": lambda x: x[..., 0].max((1, 2))[:, None] *
        ...     jnp.array([[-1.0, 1.0]]) + jnp.array([[1.0, 0.0]])})  # class 1 needs one bright cell
        >>> dark, bright = jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)).at[0, 1, 0].set(2.0)
        >>> found = jaxai.concepts.counterfactuals.swap_cells(net, dark, bright, layer="cells")
        >>> found.count.tolist(), found.sources[0, 0].tolist(), found.flipped.tolist()
        ([1], [0, 1, 0], [True])
    """
    given = jnp.asarray(distractors)
    if given.ndim == jnp.ndim(images):
        given = given[:, None]
    if given.ndim != 5 or given.shape[:1] + given.shape[2:] != jnp.shape(images) or 0 in given.shape:
        raise ValueError(
            "`distractors` must be one image for each of `images`, or [batch, m, height, width, channels];"
            f" got {jnp.shape(distractors)} for images {jnp.shape(images)}"
        )
    flat = checks.images(given.reshape(-1, *given.shape[2:]), "distractors")
    model, images, targets = _decision.prepare(model, images, targets)
    if targets.function is None and targets.classes is None:
        first = flat.reshape(given.shape)[:, 0]
        targets = _targets.frozen(model, first, targets, checks.batch_size(batch_size))
    layer = layers.resolve(model, layer, images)
    weight = checks.number(semantic_weight, "semantic_weight", "[0, inf)")
    temperature = checks.number(temperature, "temperature", "(0, inf)")
    keep = checks.number(keep, "keep", "(0, 1]")
    shape = jax.eval_shape(lambda m, x: layers.split_positions(m, layer, x)[0], model, images).shape
    rows, columns = shape[1:3]
    pairs = rows * columns * rows * columns * given.shape[1]
    cells = rows * columns
    found = _search_all(
        model,
        images,
        targets,
        flat.reshape(given.shape),
        None if features is None else _targets.as_model(features),
        jnp.asarray([weight, temperature], jnp.float32),
        layer=layer,
        tried=max(1, round(keep * pairs)),
        most=min(cells, cells if max_swaps is None else checks.positive(max_swaps, "max_swaps")),
        batch_size=checks.batch_size(batch_size),
    )
    places, sources = found.places, found.sources
    given_sources = [sources // cells, sources % cells // columns, sources % columns]
    return Swaps(
        _or_none(jnp.stack([places // columns, places % columns], -1), places),
        _or_none(jnp.stack(given_sources, -1), places),
        found.count,
        found.flipped,
        found.values,
        jnp.full(len(images), -1, jnp.int32) if targets.classes is None else targets.classes,
        (int(rows), int(columns)),
    )


def _or_none(values, places):
    return jnp.where((places == _search.OWN)[..., None], _search.OWN, values).astype(jnp.int32)


@partial(jax.jit, static_argnames=("layer", "tried", "most", "batch_size"))
def _search_all(model, images, targets, distractors, features, numbers, *, layer, tried, most, batch_size):
    def one(inputs):
        x, t, others = inputs
        acts, head = layers.split_positions(model, layer, x[None])
        pool = layers.split_positions(model, layer, others)[0]
        rows, columns, channels = acts.shape[1:]
        own, theirs = acts.reshape(-1, channels), pool.reshape(-1, channels)

        def evaluate(states):
            def of(state):
                taken = theirs[jnp.maximum(state, 0)]
                mixed = jnp.where((state == _search.OWN)[:, None], own, taken)
                value, wins = _decision.margin(t, head(mixed.reshape(acts.shape)))
                return value[0], wins[0]

            value, wins = jax.vmap(of)(states)
            objective = value if t.function is not None else jax.nn.log_sigmoid(value)
            return objective, wins, _decision.shown(t, value)

        if features is None:
            seen = [own, theirs]
        else:
            grid = (rows, columns)
            seen = [_resized(features(i), grid) for i in (x[None], others)]
        cosines = _unit(seen[0]) @ _unit(seen[1]).T
        likeness = numbers[0] * jax.nn.log_softmax(cosines / numbers[1], axis=1)
        count = theirs.shape[0]
        if tried == cosines.size:
            chosen = jnp.arange(cosines.size)
        else:
            chosen = jax.lax.top_k(cosines.reshape(-1), tried)[1]
        moves = jnp.stack([chosen // count, chosen % count], -1).astype(jnp.int32)
        return _search.fewest(
            evaluate,
            moves,
            likeness.reshape(-1)[chosen],
            places=own.shape[0],
            most=most,
            batch_size=batching.chunk_size(batch_size, model, acts),
            once=True,
        )

    # One image after the other: each step is already a large batch, and images need different numbers of
    # steps.
    def start(inputs):
        x, classes, others = inputs
        return one((x, targets.of_classes(classes), others))

    return jax.lax.map(
        start, (images, None if targets.classes is None else targets.classes[:, None], distractors)
    )


def _resized(seen, grid):
    seen = jnp.asarray(seen, jnp.float32)
    if seen.ndim != 4:
        raise ValueError(f"`features` must return [batch, h, w, channels]; got shape {seen.shape}")
    resized = jax.image.resize(seen, (seen.shape[0], *grid, seen.shape[3]), method="bilinear")
    return resized.reshape(-1, seen.shape[3])


def _unit(rows):
    rows = rows.astype(jnp.float32)
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
