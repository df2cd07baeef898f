"""Gradient-weighted maps of something other than the plain score at the image: noise, curvature, contrast."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import noisy as _noise
from .._frame.describe import Passes, describes, unless_relu
from .._frame.scores import log_probabilities
from .._frame.targets import Target, Targets, is_class
from ._core import View, explain, weighted
from ._gradient import plus_plus_weights


def _smooth_plus_plus(view: View, *, key, num_samples: int, noise, noise_unit: str) -> jax.Array:
    targets = view.frozen()
    deviation = _noise.scale(view.images, noise, noise_unit)

    def some(indices, valid):
        def one(x):
            acts, head = layers.split_positions(view.model, view.layer, x)
            grads = targets.gradients(head, acts)[1].astype(jnp.float32)
            return jnp.stack([grads, grads**2, grads**3])

        powers = jax.vmap(one)(_noise.copies(view.images, deviation, key, indices))
        return jnp.tensordot(valid, powers, axes=1)

    total = batching.sum_chunks(some, jnp.arange(num_samples), batch_size=view.samples(view.images))
    first, second, third = total / num_samples
    return weighted(view, plus_plus_weights(view.beside(first), first, second, third))


@describes(
    title="Smooth Grad-CAM++",
    result="heatmap",
    cost=lambda o: Passes(1 + o.num_samples, heads=o.num_samples * o.targets),
    signed=unless_relu,
)
def smooth_grad_cam_plus_plus(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 4,
    noise: float = 0.3,
    noise_unit: str = "absolute",
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Average Grad-CAM++'s derivatives over noisy copies of the image before its weights are formed.

    The mean gradient takes the ReLU, and the numerator is the second derivative as in Grad-CAM++ (the paper's
    equation prints the first there; torch-cam corrects it too). Defaults are torch-cam's.

    Args:
        noise_unit: `"absolute"` (input units) or `"range"` (a fraction of the image's range).

    References:
        Omeiza et al.: Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep
        Convolutional Neural Network Models. 2019, arXiv 1908.01224, equations 7 and 8.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.smooth_grad_cam_plus_plus(net, x, 1, layer="features", key=jax.random.key(0)).shape
        (1, 2, 2)
    """
    return explain(
        _smooth_plus_plus,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        key=checks.key(key),
        num_samples=checks.positive(num_samples, "num_samples"),
        noise=noise,
        noise_unit=checks.choice(noise_unit, "noise_unit", _noise.UNITS),
    )


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

    # Reverse over reverse, since convolutions that state a pullback have no forward derivative; the Hessian
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
) -> Float[Array, "batch *k height width"]:
    """Weight each channel by its Shapley value to second order: gradient minus half the Hessian times acts.

    With `utility="logit"` on a network of ReLUs the Hessian is zero and this is Grad-CAM; the paper's utility
    is curved. Costs one more forward and backward pass of the head for each target.

    Args:
        targets: What to explain; None is the top class of the image itself; a callable is used as it is.
        utility: `"rest"`: logit plus log-probability of the class, the paper's; `"logit"`, which
            pytorch-grad-cam differentiates unless told otherwise; `"probability"`.

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


def _finer(view: View, *, strength, comparisons: int) -> jax.Array:
    if view.targets.function is not None:
        raise TypeError("finer_cam contrasts a class with its neighbours; got a callable target")

    def contrast(target, scores):
        scores = scores.astype(jnp.float32)
        if scores.shape[1] == 1:
            raise ValueError("finer_cam contrasts a class with others; the model has one score: use grad_cam")
        own = target.of(scores)
        count = scores.shape[1]

        def nearest(distance, _):
            rival = jnp.argmin(distance, axis=1)
            return jnp.where(is_class(rival, count), jnp.inf, distance), rival

        # One by one: scores that are spread over devices cannot be sorted.
        distance = jnp.abs(jax.lax.stop_gradient(scores - own[:, None]))
        distance = jnp.where(is_class(target.classes, count), jnp.inf, distance)
        rivals = jax.lax.scan(nearest, distance, length=min(comparisons, count - 1))[1].T
        others = target.of_classes(rivals).of(scores)
        # Probabilities divided by their sum over the rivals, however small it is.
        weights = jax.nn.softmax(others, axis=1)
        return (weights * (own[:, None] - strength * others)).sum(1)

    _, grads = replace(view, targets=view.frozen()).gradients(value=contrast)
    return weighted(view, grads.mean((-3, -2), keepdims=True))


@describes(
    title="Finer-CAM", result="heatmap", cost=lambda o: Passes(heads=1 + o.targets), signed=unless_relu
)
def finer_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    strength: float = 1.0,
    comparisons: int = 3,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Run Grad-CAM on what sets a class apart from those with the nearest scores.

    The score is the mean of s_c - strength s_d over the `comparisons` classes d whose scores are nearest to
    s_c, weighted by their probabilities, as in pytorch-grad-cam (which picks the top class's neighbours
    only).

    Args:
        targets: Classes; None is the top class of the image itself; a callable is refused.
        strength: How much of the others' evidence is taken away; 0 is Grad-CAM times a constant.
        comparisons: How many classes to compare with; fewer if the model has fewer.

    References:
        Zhang et al.: Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation. CVPR
        2025, arXiv 2501.11309.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.finer_cam(net, x, 1, layer="features", comparisons=1).ravel().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return explain(
        _finer,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        strength=float(strength),
        comparisons=checks.positive(comparisons, "comparisons"),
    )
