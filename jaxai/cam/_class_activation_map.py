"""CAM: weights of the linear layer after global average pooling."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._frame.describe import describes, one_head, unless_relu
from .._frame.targets import Targets
from .._program.affine import is_affine
from . import _dense_head
from ._core import View, explain, weighted


def _cam(view: View) -> jax.Array:
    # Outputs without classes raise an error here.
    _, grads = view.gradients()
    if not _is_pooled_and_linear(view):
        raise ValueError(
            "`layer` must be followed by global average pooling and one linear layer, and a callable target"
            f" be linear; {view.layer!r} is not: use grad_cam, which equals CAM divided by the number of"
            " positions there"
        )
    # The pool divides by the number of positions, so the sum of the gradient is the linear layer's weight.
    return weighted(view, grads.sum((-3, -2), keepdims=True))


def _is_pooled_and_linear(view: View) -> bool:
    """Return whether the target is affine in the means of the channels and nothing else."""
    function, acts = view.targets.function, view.acts

    def head(acts):
        return view.head(acts) if function is None else view.targets.of(view.head(acts))

    dense = _dense_head.find(head, acts)
    if dense is None or dense.kernel.shape[0] != acts.shape[-1]:
        return False
    features = jax.eval_shape(dense.before, acts)
    product = jax.ShapeDtypeStruct((features.shape[0], dense.kernel.shape[1]), features.dtype)
    if not is_affine(dense.before, acts) or not is_affine(dense.after, product):
        return False
    # Feature c depends on channel c only: it is the mean if all positions contribute equally, with sum 1.
    with jax.ensure_compile_time_eval():
        _, pullback = jax.vjp(dense.before, jnp.zeros(acts.shape, acts.dtype))
        slopes = pullback(jnp.ones(features.shape, features.dtype))[0]
    if isinstance(slopes, Tracer):
        # A parameter is involved.
        return False
    share = 1 / math.prod(acts.shape[1:3])
    precision = 4 * float(jnp.finfo(features.dtype).eps)
    return bool(np.allclose(np.asarray(slopes, np.float32), share, rtol=precision, atol=0))


@describes(title="CAM", result="heatmap", cost=one_head, signed=unless_relu)
def class_activation_map(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by the class's weight in the linear layer after global average pooling.

    Consecutive linear layers count as one.

    Args:
        model: A layered model whose head after `layer` is a global average pool and one linear layer.

    Raises:
        ValueError: If the head has another form, as read from its program.

    References:
        Zhou et al.: Learning Deep Features for Discriminative Localization. CVPR 2016, arXiv 1512.04150,
        equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> dense = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2)) @ dense})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.class_activation_map(net, x, 1, layer="features").ravel().tolist()
        [2.0, 6.0, 10.0, 14.0]
    """
    return explain(
        _cam, model, images, targets, layer=layer, relu=relu, upsample=upsample, batch_size=batch_size
    )
