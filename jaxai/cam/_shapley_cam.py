"""ShapleyCAM: gradients of a utility, with the curvature of the head."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import Passes, describes, unless_relu
from .._frame.scores import log_probabilities
from .._frame.targets import Target, Targets
from ._core import View, explain, weighted


def _residual_softmax(target: Target, scores: Any) -> jax.Array:
    if target.function is not None:
        return target.of(scores)
    if target.normalized:
        raise ValueError("`utility='rest'` needs logits; the model returns probabilities: use 'probability'")
    return target.of(scores) + target.of(log_probabilities(scores))


UTILITIES = {"rest": _residual_softmax, "logit": Target.of, "probability": Target.probability}


def _shapley(view: View, *, utility: str) -> jax.Array:
    frozen = replace(view, targets=view.frozen())

    def gradient(acts):
        return replace(frozen, acts=acts).gradients(value=UTILITIES[utility])[1]

    # Reverse over reverse, since convolutions with a custom pullback have no forward derivative; the Hessian
    # is symmetric, so the pullback of the activations is its product with them.
    grads, pullback = jax.vjp(gradient, view.acts)
    if grads.ndim == view.acts.ndim:
        product = pullback(view.acts)[0]
    else:

        def one(index):
            return pullback(jnp.zeros_like(grads).at[:, index].set(view.acts))[0]

        product = jnp.moveaxis(jax.lax.map(one, jnp.arange(grads.shape[1])), 0, 1)
    return weighted(view, (grads - product / 2).mean((-3, -2), keepdims=True))


@describes(
    title="ShapleyCAM", result="heatmap", cost=lambda o: Passes(heads=1 + 2 * o.targets), signed=unless_relu
)
def shapley_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    utility: str = "rest",
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by its Shapley value to second order: gradient minus half the Hessian times acts.

    With `utility="logit"` on a ReLU network the Hessian is zero and this is Grad-CAM; the paper's utility is
    nonlinear. Costs one more forward and backward pass of the head per target.

    Args:
        targets: What to explain; None is the top class of the image itself; a callable is used unchanged.
        utility: `"rest"`: logit plus log-probability of the class, the paper's; `"logit"`, pytorch-grad-cam's
            default; `"probability"`.

    References:
        Cai: CAMs as Shapley Value-based Explainers. The Visual Computer 2025, arXiv 2501.06261.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.shapley_cam(net, x, 1, layer="features", utility="logit").ravel().tolist()
        [0.25, 0.75, 1.25, 1.75]
    """
    return explain(
        _shapley,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        probability=utility != "logit",
        utility=checks.choice(utility, "utility", tuple(UTILITIES)),
    )
