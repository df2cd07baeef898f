"""Grad-CAM of every class at once, with shortcuts for common forms of the head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.model import one_array
from . import _dense_head
from ._core import View, explain


def _all_weights(view: View) -> jax.Array:
    """Return the mean gradient of every class in every channel, [batch, classes, channels]."""
    batch, height, width, channels = view.acts.shape
    dense = _dense_head.find(view.head, view.acts)
    if dense is None:
        scores = jax.eval_shape(view.head, view.acts)
        every = jnp.broadcast_to(jnp.arange(_targets.class_count(one_array(scores).shape)), scores.shape)
        every = view.targets.of_classes(every)
        _, grads = every.gradients(view.head, view.acts, batch_size=view.batch_size or batch * 64)
        return grads.astype(jnp.float32).mean((-3, -2))

    # The sum of a gradient over a channel's positions is the derivative along that channel of ones. Ones pass
    # through the pools (the derivative of `before`) and the dense layer, whose positions they sum: what
    # remains is one derivative of the small rest of the network per channel, for all classes together.
    features, slopes = jax.jvp(dense.before, (view.acts,), (jnp.ones_like(view.acts),))
    _, derivative = jax.linearize(dense.after, features @ dense.kernel)

    def some(indices):
        return jax.vmap(derivative)(_dense_head.channel_rows(dense, slopes, indices))

    sums = batching.map_chunks(some, jnp.arange(channels), batch_size=_dense_head.BLOCK)
    return jnp.moveaxis(sums, 0, -1) / (height * width)


def _all_classes(view: View) -> jax.Array:
    return jnp.einsum("bkc,bhwc->bkhw", _all_weights(view), view.acts)


@describes(
    title="Grad-CAM of all classes",
    result="heatmap",
    cost=lambda o: Passes(2),
    signed=True,
    left_out="a map of every class, where the command shows the classes that are asked for: grad_cam",
)
def grad_cam_all_classes(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch classes h w"]:
    """Return Grad-CAM of every class for about the cost of a second forward pass, not one head per class.

    For a head of global average pooling and a linear layer the weights are the layer's own, divided by the
    number of positions. For pools and dense layers (VGG) the first dense layer is summed over its positions
    and one forward-mode derivative of the rest is taken per channel. Other heads are differentiated class by
    class.

    Args:
        relu: Keep only evidence for each class.
        upsample: Resize the maps to the image; a thousand maps of 224 x 224 take 200 MB per image.

    Returns:
        Maps [batch, classes, h, w], as `grad_cam` gives them with targets [[0, 1, 2, ...]].

    Raises:
        ValueError: If the scores have no classes.

    References:
        Selvaraju et al.: Grad-CAM. ICCV 2017, arXiv 1610.02391, equations 1 and 2, and appendix A.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.grad_cam_all_classes(net, x, layer="features").ravel().tolist()
        [0.0, 0.5, 1.0, 1.5, 0.25, 0.75, 1.25, 1.75]
    """
    return explain(
        _all_classes, model, images, None, layer=layer, relu=relu, upsample=upsample, batch_size=batch_size
    )
