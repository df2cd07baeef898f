"""CRAFT's recursion: the parts of a concept at an earlier layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.spread import standard_error
from .._program import layouts
from ..perturbation import sobol_design
from ._craft import TOP, Craft, check_signs, crop_activations, crop_places, cut, factors, importance
from ._parts import parts


@register_dataclass
@dataclass(frozen=True, eq=False)
class _Parent:
    """A layered model that returns the amount of a concept, [batch, 1]."""

    model: Any
    directions: jax.Array
    concept: jax.Array
    end: str = field(metadata={"static": True})
    lies: layouts.Layout | None = field(metadata={"static": True})
    names: tuple[str, ...] = field(metadata={"static": True})

    @property
    def layer_names(self) -> tuple[str, ...]:
        return self.names

    def __call__(self, x: jax.Array, *, start: str | None = None, stop: str | None = None) -> jax.Array:
        if stop is not None:
            return self.model(x, start=start, stop=stop)
        acts = self.model(x, stop=self.end) if start is None else self.model(x, start=start, stop=self.end)
        acts = layouts.channels_last(self.lies, acts).astype(jnp.float32)
        return parts(acts.mean((1, 2)), self.directions)[:, self.concept][:, None]


@completed
def subconcepts(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    found: Craft,
    concept: int,
    *,
    layer: str,
    key: jax.Array,
    num_concepts: int = 5,
    share: float = 0.1,
    steps: int = 200,
    start: str = "nndsvd",
    num_designs: int = 32,
    batch_size: int | None = None,
) -> Craft:
    """Decompose a concept: factorize an earlier layer where the concept is strongest.

    The fraction `share` of the images' crops that shows the concept most strongly is run up to an earlier
    layer, whose positions are factorized. The importance of a part is its total Sobol index for the amount of
    the concept that the crops show while parts are dimmed.

    Args:
        images: The images given to `craft`, model input, float [batch, height, width, channels].
        found: The result of `craft`.
        concept: The concept's index in it.
        layer: A layer before that of `found`.
        key: Typed PRNG key of a random start.
        num_concepts: Number of parts.
        share: Fraction of the crops, in (0, 1].
        steps: As in `craft`.
        start: As in `craft`.
        num_designs: As in `craft`.

    Returns:
        A `Craft` of the earlier layer: `maps` belong to the crops, those with most of the concept first, and
        `crops` are the crops that show each part most strongly, as in `craft`.

    Raises:
        ValueError: If the concept does not exist, the layer is not before its own, has negative activations
            or no positions, or there are more parts than channels.

    References:
        Fel et al.: CRAFT: Concept Recursive Activation FacTorization for Explainability. CVPR 2023, arXiv
        2211.10154, section 3.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"early": lambda x: x, "late": lambda x: x @ jnp.ones((3, 2)),
        ...                    "logits": lambda x: x.mean((1, 2))})
        >>> x, key = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3)), jax.random.key(1)
        >>> found = jaxai.concepts.craft(net, x, 0, layer="late", num_concepts=1, key=key)
        >>> jaxai.concepts.subconcepts(net, x, found, 0, layer="early", key=key, num_concepts=2).layer
        'early'
    """
    model, images, _ = _targets.prepare(model, images, lambda scores: scores)
    if not isinstance(found, Craft):
        raise TypeError(f"`found` must be a Craft, what `craft` returns; got {type(found).__name__}")
    concept = checks.at_least(concept, "concept", 0)
    if concept >= len(found.directions):
        raise ValueError(f"`concept` must be 0 to {len(found.directions) - 1}; got {concept}")
    layer = layers.resolve(model, layer, images)
    names = layers.layer_names(model, images)
    if found.layer not in names or layer not in names[: names.index(found.layer)]:
        raise ValueError(f"`layer` must be before {found.layer!r}; got {layer!r}")
    share = checks.number(share, "share", "(0, 1]")
    size = checks.batch_size(batch_size)
    places = crop_places(len(images), images.shape[1], images.shape[2], found.size)
    seen, _ = crop_activations(
        model, images, jnp.asarray(places), layer=found.layer, side=found.size, batch_size=size
    )
    amounts = np.asarray(parts(seen, found.directions)[:, concept])
    best = np.argsort(-amounts, kind="stable")[: max(1, round(share * len(amounts)))]
    best = best[amounts[best] > 0]
    if not len(best):
        raise ValueError(f"no crop of these images shows concept {concept}")
    crops = cut(images, jnp.asarray(places[best]), found.size)
    acts = _positions(model, crops, layer, size)
    check_signs(layer, acts.min(), acts)
    num_concepts, steps = checks.positive(num_concepts, "num_concepts"), checks.positive(steps, "steps")
    made = factors(acts, "positions", num_concepts=num_concepts, key=key, steps=steps, start=start)
    lies = layers.layer_layout(model, found.layer, images)
    parent = _Parent(model, found.directions, jnp.int32(concept), found.layer, lies, names)
    masks = jnp.asarray(sobol_design(num_concepts, checks.at_least(num_designs, "num_designs", 2)))
    target = _targets.Target(jnp.zeros(len(crops), jnp.int32))
    maps, indices = importance(
        parent, crops, target, made.directions, masks, layer=layer, steps=steps, batch_size=size
    )
    order = np.argsort(-np.asarray(made.maps.mean((1, 2))), axis=0, kind="stable")[:TOP].T
    return Craft(
        made.directions,
        indices.mean(0),
        standard_error(indices),
        jnp.moveaxis(maps, -1, 1),
        made.error,
        jnp.asarray(places[best][order]),
        found.size,
        layer,
    )


def _positions(model, images, layer, batch_size):
    def chunk(x):
        return layers.split_positions(model, layer, x)[0].astype(jnp.float32)

    size = batching.chunk_size(batch_size, model, images)
    return jax.jit(lambda x: batching.map_chunks(chunk, x, batch_size=size))(images)
