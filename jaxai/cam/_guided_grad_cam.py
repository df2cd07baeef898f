"""Grad-CAM times guided backpropagation."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from .._frame import checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from ._grad_cam import grad_cam


@describes(
    title="guided Grad-CAM",
    result="pixels",
    cost=lambda o: Passes(2, backward=o.targets, heads=o.targets),
    signed=True,
)
def guided_grad_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Multiply guided backpropagation by Grad-CAM: fine detail where the evidence for the class is.

    Args:
        layer: The layer of Grad-CAM; None picks the last layer with more than one position.

    Raises:
        ValueError: If the model has no ReLU.

    References:
        Selvaraju et al.: Grad-CAM. ICCV 2017, arXiv 1610.02391, section 3.1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": jax.nn.relu, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.array([1.0, -1.0]).reshape(1, 1, 2, 1)
        >>> jaxai.guided_grad_cam(net, x, 0, layer="features").ravel().tolist()
        [0.25, 0.0]
    """
    from ..rules import guided_backprop

    model, images, targets = _targets.prepare(model, images, targets)
    targets = _targets.frozen(model, images, targets, checks.batch_size(batch_size)).plain
    cam = grad_cam(model, images, targets, layer=layer, batch_size=batch_size)
    return guided_backprop(model, images, targets, batch_size=batch_size) * cam[..., None]
