"""Counterfactual concepts: the amounts of concepts that make another class win."""

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
from .._codes import Codes, as_codes
from . import _decision

CHANGES = ("both", "less", "more")
_STRIDES = 10
_HALVINGS = 24


class ConceptChange(NamedTuple):
    """The smallest change of concepts found that flips each image."""

    change: Float[Array, "batch concepts"]
    """Amount added to each concept at every position, along its direction of length one; codes stay
    non-negative."""
    size: Float[Array, " batch"]
    """Sum over the concepts of the mean absolute change of their codes."""
    flipped: Bool[Array, " batch"]
    """Whether the target wins after the change, according to the network."""
    before: Float[Array, " batch"]
    """The target's probability for the image; for a callable, its value."""
    after: Float[Array, " batch"]
    """The same after the change."""
    classes: Int[Array, " batch"]
    """The target class; -1 for a callable target."""

    __repr__ = brief


@completed
def concept_change(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    concepts: Any,
    changes: str = "both",
    steps: int = 200,
    batch_size: int | None = None,
) -> ConceptChange:
    """Find the smallest change of concepts that makes another class win.

    A layer's activations are expressed as codes of concepts plus a residual, which is unchanged. A change
    adds an amount to a concept at all positions, without codes falling below zero. The search follows the
    path of least absolute change (forward stagewise): each step moves the concept with the largest gain of
    odds per cost by a tenth of the way, or less if the odds would fall. The last step is halved until it just
    flips, unneeded concepts are reset, and the rest is shortened to a thousandth beyond the decision
    boundary. If the odds are linear in the layer's activations, this is the smallest change.

    Args:
        targets: The class that should win, int or int[batch]; None is the image's second class. A callable
            wins with a value above zero.
        concepts: A `Craft` or an `Sae` of this layer; or directions [concepts, channels], such as those of
            `cav`, along which activations move freely.
        changes: `"both"`; `"less"`, only decreases of concepts that an image has; or `"more"`.
        steps: At most this many steps.

    Returns:
        A `ConceptChange`; `flipped` is False if the steps did not suffice or none raised the odds.

    Raises:
        ValueError: If the concepts do not have the layer's number of channels.

    References:
        Hastie, Taylor, Tibshirani, Walther: Forward stagewise regression and the monotone lasso. Electronic
        Journal of Statistics 1, 2007 (the path of least absolute change).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"colours": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> image = jnp.ones((1, 2, 2, 3)) * jnp.array([1.0, 0.4, 0.0])
        >>> found = jaxai.concepts.counterfactuals.concept_change(
        ...     net, image, layer="colours", concepts=jnp.eye(3), changes="less")
        >>> [round(float(value), 2) for value in found.change[0]], found.classes.tolist()
        ([-0.6, 0.0, 0.0], [1])
    """
    checks.choice(changes, "changes", CHANGES)
    model, images, targets = _decision.prepare(model, images, targets)
    together = checks.batch_size(batch_size)
    if targets.function is None and targets.classes is None:
        if _targets.class_count(_targets.scores_shape(model, images)) < 2:
            raise ValueError("`targets` must be given: a single score has no second class")
        targets = targets.of_classes(_second(model, images, batch_size=together))
    layer = layers.resolve(model, layer, images)
    codes = as_codes(concepts)
    channels = jax.eval_shape(lambda m, x: layers.split_positions(m, layer, x)[0], model, images).shape[-1]
    if codes.directions.shape[1] != channels:
        raise ValueError(
            f"`concepts` must be of the {channels} channels of {layer!r}; got directions"
            f" {tuple(codes.directions.shape)}"
        )
    change, size, flipped, before, after = _search_all(
        model,
        images,
        targets,
        codes,
        layer=layer,
        ways=(changes != "less", changes != "more"),
        steps=checks.positive(steps, "steps"),
    )
    classes = jnp.full(len(images), -1, jnp.int32) if targets.classes is None else targets.classes
    return ConceptChange(change, size, flipped, before, after, classes)


@partial(jax.jit, static_argnames="batch_size")
def _second(model, images, *, batch_size):
    size = batching.chunk_size(batch_size, model, images)

    def chunk(x):
        return jax.lax.top_k(model(x).astype(jnp.float32), 2)[1][:, 1].astype(jnp.int32)

    return batching.map_chunks(chunk, images, batch_size=size)


@partial(jax.jit, static_argnames=("layer", "ways", "steps"))
def _search_all(model, images, targets, codes: Codes, *, layer, ways, steps):
    def one(inputs):
        x, classes = inputs
        t = targets.of_classes(classes)
        acts, head = layers.split_positions(model, layer, x[None])
        return _smallest(head, acts, t, codes, ways, steps)

    classes = None if targets.classes is None else targets.classes[:, None]
    return jax.lax.map(one, (images, classes))


def _smallest(head, acts, target, codes, ways, steps):
    own = codes.encode(acts.astype(jnp.float32))
    low = 0.0 if codes.bounded else -jnp.inf

    def moved(change):
        return jnp.maximum(own + change, low) - own

    def margin(changed):
        value, wins = _decision.margin(target, head(changed.astype(acts.dtype)))
        return value[0], wins[0]

    def of(change):
        return margin(acts + (moved(change) @ codes.directions).astype(acts.dtype))

    first, wins = of(jnp.zeros(own.shape[-1]))
    # A tenth of the way to the boundary, and slightly beyond it for values that are almost there.
    stride = jnp.maximum(-first, 1e-3 * (1 + jnp.abs(first))) / _STRIDES

    def step(carry):
        change, last, count, _, _, value = carry
        changed = acts + (moved(change) @ codes.directions).astype(acts.dtype)
        slope = jax.grad(lambda a: margin(a)[0])(changed).astype(jnp.float32) @ codes.directions.T
        left = own + change
        up, down = left >= low, left > low
        places = own.shape[1] * own.shape[2]

        def along(kept, sign):
            gain = sign * (slope * kept).sum((0, 1, 2))
            cost = kept.sum((0, 1, 2)) / places
            return jnp.where(cost > 0, gain / jnp.where(cost > 0, cost, 1), 0), gain

        rates, gains = zip(along(up, 1.0), along(down, -1.0), strict=True)
        rates = jnp.stack([jnp.where(way, rate, 0) for way, rate in zip(ways, rates, strict=True)])
        best = jnp.argmax(rates)
        way, concept = best // rates.shape[1], best % rates.shape[1]
        gain = jnp.stack(gains)[way, concept]
        found = rates[way, concept] > 0
        # Decrease no further than to zero.
        most = jnp.where((way == 1) & (low == 0), jnp.max(left[..., concept]), jnp.inf)
        length = jnp.minimum(stride / jnp.where(found, gain, 1), most)
        signed = jnp.where(found, jnp.where(way == 0, length, -length), 0)

        def tried(halvings):
            after = change.at[concept].add(signed * 0.5**halvings)
            return halvings, after, *of(after)

        # Where the odds bend, a step that is too long for its slope goes downhill.
        halvings, after, reached, wins = jax.lax.while_loop(
            lambda done: (done[0] < _HALVINGS) & ~done[3] & ~(done[2] > value),
            lambda done: tried(done[0] + 1),
            tried(jnp.int32(0)),
        )
        better = found & (halvings < _HALVINGS)
        after, last = jnp.where(better, after, change), jnp.where(better, change, last)
        return after, last, count + 1, wins & better, ~better, jnp.where(better, reached, value)

    def going(carry):
        _, _, count, flipped, stuck, _ = carry
        return (count < steps) & ~flipped & ~stuck

    zero = jnp.zeros(own.shape[-1], jnp.float32)
    start = zero, zero, jnp.int32(0), wins, jnp.bool_(False), first
    change, before, _, flipped, _, _ = jax.lax.while_loop(going, step, start)

    def shortened(near, far):
        """Return the nearest point that flips between the two, by bisection; `far` flips."""

        def halve(pair, _):
            middle = (pair[0] + pair[1]) / 2
            inside = of(middle)[1]
            return (jnp.where(inside, pair[0], middle), jnp.where(inside, middle, pair[1])), None

        return jax.lax.scan(halve, (near, far), length=_HALVINGS)[0][1]

    change = jnp.where(flipped, shortened(before, change), change)

    def needed(carry):
        change, _ = carry
        without = change * (1 - jnp.eye(len(change), dtype=change.dtype))
        values, holds = jax.lax.map(of, without, batch_size=8)
        idle = holds & (change != 0)
        worst = jnp.argmax(jnp.where(idle, values, -jnp.inf))
        return jnp.where(idle.any(), without[worst], change), idle.any()

    change = jax.lax.while_loop(
        lambda carry: carry[1], needed, (change, flipped & ((change != 0).sum() > 1))
    )[0]
    change = jnp.where(flipped, shortened(jnp.zeros_like(change), change), change)
    # A thousandth beyond the boundary, at which rounding would decide.
    beyond = change * 1.001
    change = jnp.where(of(beyond)[1], beyond, change)
    last = of(change)
    size = jnp.abs(moved(change)).mean((0, 1, 2)).sum()
    told = [_decision.shown(target, value) for value in (first, last[0])]
    return change, size, last[1], *told
