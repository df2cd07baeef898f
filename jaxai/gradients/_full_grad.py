"""Full gradients: the contributions of the input and of every bias, anywhere in the network, to a score.

The function is read as a graph. An operation's remainder is its result minus its derivative times its
operands: an added bias, the six of a saturated ReLU6, the curvature of a sigmoid. The score is the sum over
all remainders of remainder x gradient, plus input x gradient, exactly and for any function. Values whose
derivative is zero, such as the gate of x * (x > 0), count as constants.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import maps
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import describes, one_backward
from .._frame.results import brief
from .._program.facts import fact
from .._program.graph import Graph, Node, trace, values_of
from .._program.run import evaluate


class FullGradients(NamedTuple):
    """The decomposition of a score, which sums to the score.

    Attributes:
        input: Image x gradient [batch, height, width, channels]; [batch, k, ...] for k classes per image.
        biases: Remainder x gradient of each operation that has one, in forward order, [batch, ...] like its
            output.
    """

    input: jax.Array
    biases: tuple[jax.Array, ...]

    __repr__ = brief


def _moves(graph: Graph, image: int) -> set[int]:
    """Return the values whose derivative with respect to the image need not be zero."""
    found = {image}
    for node in graph.nodes:
        if not fact(node.name).flat and found.intersection(values_of(node.inputs)):
            found.update(out for out in node.outputs if jnp.issubdtype(graph.avals[out].dtype, jnp.inexact))
    return found


def _has_remainder(graph: Graph, node: Node, moves: set[int]) -> bool:
    known = fact(node.name)
    moving = [place for place, ref in enumerate(node.inputs) if ref in moves]
    if not moves.intersection(node.outputs):
        return False
    if known.linear_in:
        return len(moving) > 1 or moving[0] not in known.linear_in
    if known.linear or known.homogeneous:
        fixed = [ref for place, ref in enumerate(node.inputs) if place not in moving]
        return any(graph.splat(ref) != 0 for ref in fixed if jnp.issubdtype(graph.dtype(ref), jnp.inexact))
    return True


def _remainders(node: Node, operands: Sequence[Any], moving: list[int]) -> list[Any]:
    """Return the results minus the derivative times the operands that move."""

    def run(*values):
        filled = list(operands)
        for place, value in zip(moving, values, strict=True):
            filled[place] = value
        return list(node.run(*filled))

    point = [operands[place] for place in moving]
    if fact(node.name).linear:
        return run(*map(jnp.zeros_like, point))
    # An infinite operand whose derivative is zero adds nothing.
    direction = [jnp.where(jnp.isfinite(value), value, 0) for value in point]
    results, changes = jax.jvp(run, point, direction)
    return [
        y - dy if jnp.issubdtype(y.dtype, jnp.inexact) else y for y, dy in zip(results, changes, strict=True)
    ]


def _decompose(model: Any, images: jax.Array, targets: Any, batch_size: int | None) -> FullGradients:
    model, targets = _targets.join(model, images, targets)
    graph, flat, _ = trace(model, images)
    moves = _moves(graph, graph.inputs[-1])
    places = [
        out
        for node in graph.nodes
        if _has_remainder(graph, node, moves)
        for out in node.outputs
        if out in moves
    ]

    def run(x, changes):
        remainders = {}

        def each(node, operands):
            results = list(node.run(*operands))
            if changes.keys().isdisjoint(node.outputs):
                return results
            moving = [place for place, ref in enumerate(node.inputs) if ref in moves]
            terms = _remainders(node, jax.lax.stop_gradient(operands), moving)
            remainders.update(zip(node.outputs, terms, strict=True))
            return [y + changes[o] if o in changes else y for o, y in zip(node.outputs, results, strict=True)]

        (scores,) = evaluate(graph, [*flat[:-1], x], each=each)
        return scores, [remainders[out] for out in places]

    changes = {out: jnp.zeros(graph.avals[out].shape, graph.avals[out].dtype) for out in places}
    scores, pullback, remainders = jax.vjp(run, images, changes, has_aux=True)
    targets = targets.frozen(scores)

    def shares(direction):
        gradient, by_place = pullback(direction)
        gradients = [gradient, *(by_place[out] for out in places)]
        return [_share(r, g) for r, g in zip([images, *remainders], gradients, strict=True)]

    found = targets.pull(shares, targets.cotangents(scores), batch_size=batch_size)
    return FullGradients(found[0], tuple(found[1:]))


def _share(value: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return value x gradient, and 0 where the gradient is 0: unused infinite padding adds nothing."""
    wide = jnp.promote_types(value.dtype, jnp.float32)
    share = jnp.real(value.astype(wide) * gradient.astype(wide)).astype(jnp.float32)
    return jnp.where(gradient == 0, 0, share)


@describes(
    title="full gradients",
    result="pixels",
    cost=one_backward,
    signed=True,
    left_out="a share of every bias, not one map: full_grad shows them in one",
)
def full_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> FullGradients:
    """Split a score into contributions of the input and of every bias, which sum to the score exactly.

    Biases are found in any JAX function: added constants, constant branches of clips, and the curvature of
    smooth nonlinearities.

    Args:
        targets: What to explain; logits are differentiated. A callable's own remainder is not part of the
            sum. None is the top class of the image itself.

    Returns:
        The contributions.

    References:
        Srinivas, Fleuret: Full-Gradient Representation for Neural Network Visualization. NeurIPS 2019,
        arXiv 1905.00780, equations 2 and 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> parts = jaxai.full_gradients(lambda x: (2 * x + 3).sum((1, 2)), jnp.ones((1, 2, 2, 1)), 0)
        >>> float(parts.input.sum()), [float(b.sum()) for b in parts.biases]
        (8.0, [12.0])
    """
    model, images, targets = _targets.prepare(model, images, targets)
    return _full_gradients(model, images, targets, batch_size=checks.batch_size(batch_size))


@partial(jax.jit, static_argnames="batch_size")
def _full_gradients(model, images, targets, *, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        return _decompose(model, x, t, batch_size)

    return batching.map_images(chunk, images, targets, batch_size=batch_size)


@describes(title="FullGrad", result="heatmap", cost=one_backward)
def full_grad(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Show full gradients as one map: the magnitudes of all contributions, scaled, upsampled and summed.

    Each contribution with positions is scaled to 0 .. 1 over its positions and channels, as the authors do,
    before its channels are summed; those without positions (biases of dense layers) are left out. Upsampling
    is bilinear between half-pixel centres, whereas the authors align corners.

    References:
        Srinivas, Fleuret: Full-Gradient Representation for Neural Network Visualization. NeurIPS 2019,
        arXiv 1905.00780, equation 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: (x - 1).mean((1, 2))
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> found = jaxai.full_grad(net, x, 0)
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '0.00 0.33 0.67 1.00'
    """
    model, images, targets = _targets.prepare(model, images, targets)
    return _full_grad(model, images, targets, batch_size=checks.batch_size(batch_size))


@partial(jax.jit, static_argnames="batch_size")
def _full_grad(model, images, targets, *, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        parts = _decompose(model, x, t, batch_size)
        spatial = [part for part in parts.biases if part.ndim == parts.input.ndim]
        total = _processed(parts.input)
        for part in spatial:
            total = total + maps.upsample(_processed(part), x.shape[1:3])
        return total

    return batching.map_images(chunk, images, targets, batch_size=batch_size)


def _processed(share: jax.Array) -> jax.Array:
    """Return magnitudes scaled over positions and channels, summed over channels."""
    share = jnp.abs(share)
    axes = (-3, -2, -1)
    share = share - share.min(axes, keepdims=True)
    top = share.max(axes, keepdims=True)
    return (share / jnp.where(top > 0, top, 1)).sum(-1)
