"""Maps from the head's form: CAM of a pooled linear head, and Grad-CAM of every class at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._frame import batching
from .._frame import targets as _targets
from .._frame.describe import Passes, describes, one_head, unless_relu
from .._frame.model import one_array
from .._frame.targets import Targets
from .._program.graph import trace
from . import _dense_head
from ._core import View, explain, weighted


def _cam(view: View) -> jax.Array:
    # Outputs that a class cannot be taken from are refused here.
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
    if not _is_affine(dense.before, acts) or not _is_affine(dense.after, product):
        return False
    # Feature c is made of channel c alone: it is the mean if all positions take part with equal shares of 1.
    with jax.ensure_compile_time_eval():
        _, pullback = jax.vjp(dense.before, jnp.zeros(acts.shape, acts.dtype))
        slopes = pullback(jnp.ones(features.shape, features.dtype))[0]
    if isinstance(slopes, Tracer):
        # A parameter takes part.
        return False
    share = 1 / math.prod(acts.shape[1:3])
    precision = 4 * float(jnp.finfo(features.dtype).eps)
    return bool(np.allclose(np.asarray(slopes, np.float32), share, rtol=precision, atol=0))


def _is_affine(fn: Callable[[jax.Array], jax.Array], x: Any) -> bool:
    """Return whether a function is affine: the program of its derivative does not read where it is taken."""

    def derivative(x, direction):
        return jax.vjp(fn, x)[1](direction)[0]

    x, direction = (jnp.zeros(s.shape, s.dtype) for s in (x, jax.eval_shape(fn, x)))
    graph, *_ = trace(derivative, x, direction)
    return graph.outputs[0] not in graph.dependents(graph.inputs[:1])


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
) -> Float[Array, "batch *k height width"]:
    """Weight each channel by the class's weight in the linear layer after global average pooling.

    Linear layers without anything between them count as one.

    Args:
        model: A layered model whose head after `layer` is a global average pool and one linear layer.

    Raises:
        ValueError: If the head has another form (which is read from its program).

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
    # the pools (the derivative of `before`) and the dense layer, whose positions they sum up: what is left is
    # one derivative of the small rest of the network for each channel, of all classes together.
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
    """Return Grad-CAM of every class, for about the price of a second forward pass instead of one head each.

    For a head of global average pooling and a linear layer the weights are the layer's own, divided by the
    number of positions. For pools and dense layers (VGG) the first dense layer is summed over its positions
    and one derivative of the rest is taken for each channel, forwards. Other heads are differentiated class
    by class.

    Args:
        relu: Keep only evidence for each class.
        upsample: Resize the maps to the image; a thousand maps of 224 x 224 take 200 MB an image.

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
