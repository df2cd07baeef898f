"""Full gradients: the input's share of a score, and that of every bias, wherever it is in the network.

The function is read as a graph. An operation's remainder is what its output has beyond its derivative times
its
input: a bias that is added, the six of a ReLU6 where it saturates, the curvature of a sigmoid. The score is
the sum over all remainders of remainder x gradient, plus input x gradient, exactly and for any function.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import maps
from .._frame import batching, checks
from .._frame import targets as _targets
from .._program import jaxprs
from .._program.jaxprs import Constant, Graph, Node


class FullGradients(NamedTuple):
    """A score's decomposition; all of it sums to the score.

    Attributes:
        input: Image x gradient [batch, height, width, channels]; [batch, k, ...] for k classes an image.
        biases: Remainder x gradient of each operation that has one, in forward order, [batch, ...] like its
            output.
    """

    input: jax.Array
    biases: tuple[jax.Array, ...]


# The ports' layers stay one operation each, with the derivative they state.
_KEPT = ("conv", "depthwise_conv", "max_pool")
# Operations f with f(x) = f'(x) x in all operands that depend on the image, whatever the operands.
_HOMOGENEOUS = frozenset(
    "neg abs reshape transpose broadcast_in_dim squeeze expand_dims slice dynamic_slice gather rev copy name"
    " reduce_sum reduce_max reduce_min reduce_window_sum reduce_window_max cumsum convert_element_type real"
    " reduce_precision concatenate pad select_n select_and_gather_add max min".split()
)
# Bilinear ones: homogeneous if one operand depends on the image.
_BILINEAR = frozenset(("mul", "dot_general", "conv_general_dilated"))


def _keep(eqn) -> str | None:
    name = eqn.params.get("name") if eqn.primitive.name in ("jit", "pjit") else None
    return name if name in _KEPT else None


def _has_remainder(graph: Graph, node: Node, dependent: set[int]) -> bool:
    if not node.outputs or not jnp.issubdtype(graph.avals[node.outputs[0]].dtype, jnp.floating):
        return False
    moving = [not isinstance(ref, Constant) and ref in dependent for ref in node.inputs]
    if not any(moving):
        return False
    if node.name in _KEPT:
        return any(moving[1:])
    if node.name in _BILINEAR:
        return sum(moving) > 1
    if node.name == "div":
        return moving[1]
    if node.name in ("add", "sub"):
        return not all(moving)
    if node.name in _HOMOGENEOUS:
        fixed = [
            ref
            for ref, moves in zip(node.inputs, moving, strict=True)
            if not moves and jnp.issubdtype(_kind(graph, ref), jnp.floating)
        ]
        return any(graph.splat(ref) != 0 for ref in fixed)
    return True


def _kind(graph, ref):
    return jnp.result_type(ref.value) if isinstance(ref, Constant) else graph.avals[ref].dtype


def _remainder(node: Node, operands: list[Any], moving: list[bool], out: jax.Array) -> jax.Array:
    """Return the output minus the derivative times the operands that depend on the image."""
    if node.name in ("add", "sub"):
        fixed = operands[moving.index(False)]
        sign = -1 if node.name == "sub" and not moving[1] else 1
        return jnp.broadcast_to(sign * jnp.asarray(fixed, out.dtype), out.shape)
    places = [
        i
        for i, (moves, value) in enumerate(zip(moving, operands, strict=True))
        if moves and jnp.issubdtype(jnp.result_type(value), jnp.floating)
    ]

    def run(*values):
        filled = list(operands)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        return node.run(*filled)[0]

    point = tuple(operands[place] for place in places)
    return out - jax.jvp(run, point, point)[1]


def _decompose(model: Any, images: jax.Array, targets: Any, batch_size: int | None) -> FullGradients:
    graph, flat, _ = jaxprs.trace(model, images, keep=_keep)
    source = graph.inputs[-1]
    dependent = graph.dependents([source])
    places = {node.outputs[0]: node for node in graph.nodes if _has_remainder(graph, node, dependent)}

    def run(x, changes):
        env = {**graph.constants, **dict(zip(graph.inputs, [*flat[:-1], x], strict=True))}

        def read(ref):
            return ref.value if isinstance(ref, Constant) else env[ref]

        remainders = []
        for node in graph.nodes:
            operands = [read(ref) for ref in node.inputs]
            outputs = list(node.run(*operands))
            if node.outputs and node.outputs[0] in places:
                moving = [not isinstance(ref, Constant) and ref in dependent for ref in node.inputs]
                values = [jax.lax.stop_gradient(value) for value in operands]
                remainders.append(_remainder(node, values, moving, jax.lax.stop_gradient(outputs[0])))
                outputs[0] = outputs[0] + changes[node.outputs[0]]
            env.update(zip(node.outputs, outputs, strict=True))
        return read(graph.outputs[0]), remainders

    changes = {out: jnp.zeros(graph.avals[out].shape, graph.avals[out].dtype) for out in places}
    scores, pullback, remainders = jax.vjp(run, images, changes, has_aux=True)
    targets = targets if callable(targets) else _targets.freeze(scores, targets)
    directions = _targets.cotangents(scores, targets)
    several = directions.ndim > scores.ndim

    def shares(direction):
        gradient, by_place = pullback(direction)
        terms = [images * gradient, *(r * by_place[out] for r, out in zip(remainders, places, strict=True))]
        return [term.astype(jnp.float32) for term in terms]

    if several:
        chunk = None if batch_size is None else max(1, batch_size // images.shape[0])
        found = batching.map_chunks(jax.vmap(shares), directions, batch_size=chunk)
        found = [jnp.moveaxis(term, 0, 1) for term in found]
    else:
        found = shares(directions)
    return FullGradients(found[0], tuple(found[1:]))


def full_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> FullGradients:
    """Split a score into the input's share and that of every bias; they sum to the score exactly.

    Biases are found in any JAX function: constants that are added, constant branches of clips, and the
    curvature of smooth nonlinearities.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain; logits are differentiated. A callable's own remainder is not part of the
            sum.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        The shares.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.

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

    def chunk(arguments):
        x, t = arguments
        return _decompose(model, x, t, batch_size)

    return batching.map_chunks(chunk, (images, targets), batch_size=batch_size)


def full_grad(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Show full gradients as one map: magnitudes of every share, scaled, upsampled and summed.

    Each share with positions is scaled to 0 .. 1 over its positions and channels, as the authors do, before
    its channels are summed; those without (biases of dense layers) are left out. Upsampling is bilinear
    between half-pixel centres, the authors' aligns corners.

    Args:
        model: As in `full_gradients`, like the other arguments.
        images: Model input.
        targets: What to explain.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        Maps [batch, height, width]; [batch, k, ...] for k classes an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.

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

    def chunk(arguments):
        x, t = arguments
        parts = _decompose(model, x, t, batch_size)
        spatial = [part for part in parts.biases if part.ndim == parts.input.ndim]
        total = _processed(parts.input)
        for part in spatial:
            total = total + maps.upsample(_processed(part), x.shape[1:3])
        return total

    return batching.map_chunks(chunk, (images, targets), batch_size=batch_size)


def _processed(share: jax.Array) -> jax.Array:
    """Return magnitudes scaled over positions and channels, summed over channels."""
    share = jnp.abs(share)
    axes = (-3, -2, -1)
    share = share - share.min(axes, keepdims=True)
    top = share.max(axes, keepdims=True)
    return (share / jnp.where(top > 0, top, 1)).sum(-1)
