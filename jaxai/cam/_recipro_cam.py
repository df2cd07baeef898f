"""Recipro-CAM: the score of each position's activations alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from ._core import View, explain


def _recipro(view: View, *, gaussian: bool, logit: bool) -> jax.Array:
    batch, height, width, _ = view.acts.shape
    targets = view.frozen()
    value = targets.of if logit else targets.probability
    rows, columns = jnp.arange(height), jnp.arange(width)

    def spread(positions, centre):
        distance = jnp.abs(positions - centre)
        if not gaussian:
            return (distance == 0).astype(jnp.float32)
        return jnp.where(distance == 0, 0.5, jnp.where(distance == 1, 0.25, 0.0))

    def one(index):
        row, column = index // width, index % width
        mask = spread(rows, row)[None, :, None, None] * spread(columns, column)[None, None, :, None]
        return value(view.head(view.acts[:, row, column][:, None, None] * mask))

    values = batching.map_chunks(
        jax.vmap(one), jnp.arange(height * width), batch_size=view.samples(view.acts)
    )
    return jnp.moveaxis(values, 0, -1).reshape(*values.shape[1:], height, width)


@describes(
    title="Recipro-CAM",
    result="heatmap",
    cost=lambda o: Passes(heads=o.positions),
    unit="probability",
    signed=lambda o: not (o.relu or o.probability),
    explains="probability",
)
def recipro_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    gaussian: bool = True,
    probability: bool = True,
    layer: str | None = None,
    relu: bool = False,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Score each position of a layer by the head's output for its features alone; uses no gradients.

    The features of one position are kept, spread over its 3 x 3 neighbours by a Gaussian window, and all
    others are zero. The image passes through the network once; the head runs once per position.

    Args:
        gaussian: Spread each position's features; otherwise keep them at their position.
        probability: Score by the probability of the class, as the paper does (see `jaxai.targets`); otherwise
            by its logit.
        relu: Drop negative values.

    Returns:
        Maps [batch, height, width]; [batch, k, ...] for k classes per image. The paper shows them min-max
        scaled.

    References:
        Byun, Lee: ReciproCAM: Lightweight Gradient-free Class Activation Map for Post-hoc Explanations. CVPR
        Workshops 2024, arXiv 2209.14074, equations 2 to 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> found = jaxai.recipro_cam(net, x, 1, layer="features")
        >>> " ".join(f"{value:.1f}" for value in found.ravel())
        '0.5 0.5 0.5 0.5'
    """
    return explain(
        _recipro,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        gaussian=bool(gaussian),
        probability=bool(probability),
        logit=not probability,
    )
