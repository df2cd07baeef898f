"""Whether a network whose file fixes the images' size takes another one: no node may state a size."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._files import shown
from ...weights_convert.stored import Refused
from .network import Network

# What reads whole axes; the shape of other results changes with that of what they are made of.
_WHOLE = ("Global", "Reduce", "Arg")
_ALSO = ("Shape", "Size", "Gather", "MatMul", "Gemm", "Einsum")


def check(model: Network, batch: int, stated: Sequence[int], wanted: Sequence[int]) -> None:
    """Check that a network takes images of another size than its file states.

    Args:
        model: The network.
        batch: A number of images that it takes.
        stated: The shape of one image as the file states it, [height, width, channels].
        wanted: That of the other images.

    Raises:
        Refused: If a node fixes the size; it is named.
    """
    first = f"`input_size` must be what the file fixes, {stated[0]} x {stated[1]}; got {wanted[0]}"
    before = _shapes(model, batch, stated)
    try:
        after = _shapes(model, batch, wanted)
    except Refused as error:
        raise Refused(f"{first}, and {error}") from error
    for node in model.plan.nodes:
        if node.op.startswith(_WHOLE) or node.op in _ALSO:
            continue
        moved = any(before.get(name) != after.get(name) for name in node.inputs)
        results = [name for name in node.outputs if name in before]
        if moved and any(before[name] == after[name] for name in results):
            raise Refused(f"{first}, and node {shown(node.name)!r} ({node.op}) states its result's size")
    for name in model.plan.outputs:
        if before[name][:1] != after[name][:1]:
            raise Refused(f"{first}, and result {shown(name)!r} counts positions as images")


def _shapes(model: Network, batch: int, sizes: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each value that depends on images of this shape, as the file counts it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def run(model: Network, images: jax.Array) -> Any:
        found = model.values(images)
        shapes.update({name: tuple(value.shape) for name, value in found.items()})
        return ()

    jax.eval_shape(run, model, jax.ShapeDtypeStruct((batch, *sizes), jnp.float32))
    return shapes
