"""Finer-CAM: what distinguishes a class from similar ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets, is_class
from ._core import View, explain, weighted


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

        # One by one, because scores that are sharded over devices cannot be sorted.
        distance = jnp.abs(jax.lax.stop_gradient(scores - own[:, None]))
        distance = jnp.where(is_class(target.classes, count), jnp.inf, distance)
        rivals = jax.lax.scan(nearest, distance, length=min(comparisons, count - 1))[1].T
        others = target.of_classes(rivals).of(scores)
        # Probabilities normalised by their sum over the rivals, however small it is.
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
) -> Float[Array, "batch *k rows columns"]:
    """Run Grad-CAM on what distinguishes a class from the classes with the nearest scores.

    The score is the mean of s_c - strength s_d over the `comparisons` classes d whose scores are nearest to
    s_c, weighted by their probabilities, as in pytorch-grad-cam (which picks the top class's neighbours
    only).

    Args:
        targets: Classes; None is the top class of the image itself; a callable raises an error.
        strength: How much of the others' evidence is subtracted; 0 is Grad-CAM times a constant.
        comparisons: Number of classes to compare with; fewer if the model has fewer.

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
