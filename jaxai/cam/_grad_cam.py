"""Class activation maps weighted by the gradient of the score, each defined by a formula for its weights."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame.describe import describes, one_head, unless_relu
from .._frame.targets import Targets
from ._core import by_gradient, explain


@runtime_checkable
class GradientCam(Protocol):
    """The signature of every method in this file."""

    __name__: str

    def __call__(
        self,
        model: Callable[..., Any],
        images: Float[Array, "batch height width channels"],
        targets: Targets = None,
        *,
        layer: str | None = None,
        relu: bool = True,
        upsample: bool = True,
        batch_size: int | None = None,
    ) -> Float[Array, "batch *k rows columns"]: ...


def _method(weights: Callable[[jax.Array, jax.Array], jax.Array]) -> GradientCam:
    """Make the public function from `weights(acts, grads)`, for acts and grads [..., h, w, channels]."""

    def cam(
        model: Callable[..., Any],
        images: Float[Array, "batch height width channels"],
        targets: Targets = None,
        *,
        layer: str | None = None,
        relu: bool = True,
        upsample: bool = True,
        batch_size: int | None = None,
    ) -> Float[Array, "batch *k rows columns"]:
        return explain(
            by_gradient,
            model,
            images,
            targets,
            layer=layer,
            relu=relu,
            upsample=upsample,
            batch_size=batch_size,
            weights=weights,
        )

    cam.__name__ = cam.__qualname__ = weights.__name__
    cam.__module__ = weights.__module__
    cam.__doc__ = weights.__doc__
    return cam


@describes(title="Grad-CAM", result="heatmap", cost=one_head, signed=unless_relu)
@_method
def grad_cam(acts, grads):
    """Weight each channel of a layer by its mean gradient and sum: where the evidence for a class is.

    Costs one forward pass and, per target, one backward pass of the layers after `layer`. Values are raw (not
    normalised); Captum's LayerGradCam is `relu=False, upsample=False`.

    References:
        Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization.
        ICCV 2017, arXiv 1610.02391, equations 1 and 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"conv": lambda x: x * jnp.array([1.0, 2.0]), "pool": lambda x: x.mean((1, 2))})
        >>> jaxai.grad_cam(net, jnp.ones((1, 2, 2, 2)), 1)[0].tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    return grads.mean((-3, -2), keepdims=True)


@describes(title="XGrad-CAM", result="heatmap", cost=one_head, signed=unless_relu)
@_method
def xgrad_cam(acts, grads):
    """Weight each channel by its gradient averaged over its own activation: sensitive and conserving.

    1e-7 is added to the denominator, as in pytorch-grad-cam.

    References:
        Fu et al.: Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs. BMVC 2020,
        arXiv 2008.02312, equation 8.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.xgrad_cam(net, x, 1, layer="features").ravel().tolist()
        [0.25, 0.75, 1.25, 1.75]
    """
    total = acts.sum((-3, -2), keepdims=True)
    return (grads * acts).sum((-3, -2), keepdims=True) / (total + 1e-7)


@describes(title="HiResCAM", result="heatmap", cost=one_head, signed=unless_relu)
@_method
def hires_cam(acts, grads):
    """Multiply activations by their own gradients, position by position: Grad-CAM on pooled linear heads.

    References:
        Draelos, Carin: Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
        networks. 2020, arXiv 2011.08891, equation 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.hires_cam(net, x, 1, layer="features").ravel().tolist()
        [0.25, 0.75, 1.25, 1.75]
    """
    return grads


@describes(title="element-wise Grad-CAM", result="heatmap", cost=one_head, signed=unless_relu)
@_method
def element_wise_grad_cam(acts, grads):
    """Sum the positive products of activations and gradients, position by position and channel by channel.

    References:
        As pytorch-grad-cam's GradCAMElementWise.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.element_wise_grad_cam(net, x, 1, layer="features").ravel().tolist()
        [0.25, 0.75, 1.25, 1.75]
    """
    return jnp.where(grads * acts > 0, grads, 0)


@describes(title="LayerCAM", result="heatmap", cost=one_head, signed=unless_relu)
@_method
def layer_cam(acts, grads):
    """Weight each activation by its own positive gradient, which makes shallow layers readable.

    References:
        Jiang et al.: LayerCAM: Exploring Hierarchical Class Activation Maps for Localization. IEEE TIP 2021,
        doi 10.1109/TIP.2021.3089943, equations 5 and 6.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.layer_cam(net, x, 1, layer="features").ravel().tolist()
        [0.25, 0.75, 1.25, 1.75]
    """
    return jax.nn.relu(grads)
