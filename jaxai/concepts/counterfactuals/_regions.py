"""The smallest regions of an image that are necessary or sufficient for a class."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer

from ..._frame import batching, checks
from ..._frame import targets as _targets
from ..._frame.contract import completed
from ..._frame.results import brief
from ...perturbation import _fills, _segments
from . import _decision, _search

VARIANTS = ("delete", "preserve")


class Regions(NamedTuple):
    """The smallest region found for each image, and its verification."""

    masks: Bool[Array, "batch height width"]
    """The region: hidden for `"delete"`, the only part shown for `"preserve"`."""
    order: Int[Array, "batch most"]
    """Superpixels in the order of selection; -1 after the last."""
    count: Int[Array, " batch"]
    """Number of superpixels in the region."""
    area: Float[Array, " batch"]
    """Fraction of the image, in [0, 1]."""
    flipped: Bool[Array, " batch"]
    """Whether the class is lost without the region (`"delete"`), or wins with only the region (`"preserve"`),
    according to the network's scores of the changed image."""
    values: Float[Array, "batch steps"]
    """The class's probability before the first superpixel and after each, [batch, most + 1]; for a callable,
    its value. NaN after the last."""
    became: Int[Array, " batch"]
    """The top class of the changed image; -1 for a callable target."""

    __repr__ = brief


@completed
def smallest_regions(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    variant: str = "delete",
    segments: Integer[ArrayLike, "*batch height width"] | None = None,
    grid: int | tuple[int, int] = 8,
    fill: Any = "blur",
    key: jax.Array | None = None,
    max_segments: int | None = None,
    batch_size: int | None = None,
) -> Regions:
    """Find the smallest region without which a class is lost, or which alone suffices for it.

    Each step hides (or shows) the superpixel that lowers (or raises) the class's odds most, after scoring
    every remaining one, until another class wins (or the class does). Unneeded superpixels are then reset, so
    that every single one in the region is needed. The search is greedy: a smaller region of other superpixels
    may exist.

    Args:
        targets: The class, int or int[batch]; None is the top class of the image itself. A callable wins
            while its value is above zero.
        variant: `"delete"`: the region whose absence loses the class; `"preserve"`: the region that keeps the
            class while everything else is hidden.
        segments: Labels of `jaxai.segment`, int [batch, height, width] (or [height, width] for all images);
            None uses the cells of `grid`.
        grid: Number of cells down and across.
        max_segments: Stop after this many superpixels; None allows all.

    Returns:
        A `Regions`; `flipped` is False if the allowed superpixels did not suffice.

    Raises:
        ValueError: If there is more than one class per image.

    References:
        Vermeire et al.: Explainable Image Classification with Evidence Counterfactual. Pattern Analysis and
        Applications 25, 2022, arXiv 2004.07511 (SEDC, greedy without its growing combinations).
        Carter et al.: What made you do this? Understanding black-box decisions with sufficient input subsets.
        AISTATS 2019, arXiv 1810.03805 (sufficient subsets).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: jnp.stack([x[:, :2, :2].mean((1, 2, 3)), jnp.full(len(x), 0.5)], 1)
        >>> found = jaxai.concepts.counterfactuals.smallest_regions(
        ...     model, jnp.ones((1, 4, 4, 1)), grid=2, fill=0.0)
        >>> found.order[0, 0].item(), found.count.item(), found.became.item()
        (0, 1, 1)
    """
    checks.choice(variant, "variant", VARIANTS)
    model, images, targets = _decision.prepare(model, images, targets)
    if segments is None:
        rows, columns = checks.pair(grid, "grid")
        segments = _segments.grid((images.shape[1], images.shape[2]), rows, columns)
    superpixels = _segments.prepare(segments, images, None)
    hidden = _fills.background(fill, images, superpixels.labels, superpixels.count, key=key)
    targets = _targets.frozen(model, images, targets, checks.batch_size(batch_size))
    count = superpixels.count
    return _search_all(
        model,
        images,
        hidden,
        superpixels.labels,
        superpixels.present > 0,
        targets,
        count=count,
        most=min(count, count if max_segments is None else checks.positive(max_segments, "max_segments")),
        delete=variant == "delete",
        batch_size=batching.chunk_size(batch_size, model, images),
    )


@partial(jax.jit, static_argnames=("count", "most", "delete", "batch_size"))
def _search_all(model, images, hidden, labels, present, targets, *, count, most, delete, batch_size):
    moves = jnp.stack([jnp.arange(count), jnp.zeros(count, jnp.int32)], -1).astype(jnp.int32)

    def one(inputs):
        image, behind, label, real, classes = inputs
        target = targets.of_classes(classes)

        def painted(state):
            region = (state != _search.OWN)[label]
            return region, jnp.where((region == delete)[..., None], behind, image)

        def evaluate(states):
            outputs = model(jax.vmap(lambda state: painted(state)[1])(states))
            # All states of the image have the same target class.
            many = target.of_classes(None if classes is None else jnp.repeat(classes, len(states)))
            value, wins = _decision.margin(many, outputs)
            shown = _decision.shown(many, value)
            return (-value, ~wins, shown) if delete else (value, wins, shown)

        # A superpixel that this image lacks changes nothing.
        bonus = jnp.where(real, 0, -jnp.inf)
        found = _search.fewest(
            evaluate, moves, bonus, places=count, most=most, batch_size=batch_size, once=False
        )
        used = jnp.where(found.places == _search.OWN, count, found.places)
        state = jnp.full(count, _search.OWN, jnp.int32).at[used].set(0, mode="drop")
        region, last = painted(state)
        became = jnp.int32(-1) if target.function is not None else model(last[None]).argmax(-1)[0]
        return region, found, became.astype(jnp.int32)

    classes = None if targets.classes is None else targets.classes[:, None]
    masks, found, became = jax.lax.map(one, (images, hidden, labels, present, classes))
    area = masks.mean((1, 2))
    return Regions(masks, found.places, found.count, area, found.flipped, found.values, became)
