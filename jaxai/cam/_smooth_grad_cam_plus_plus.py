"""Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers
from .._frame import batching, checks
from .._frame import noisy as _noise
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted
from ._grad_cam_plus_plus import plus_plus_weights


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
) -> Float[Array, "batch *k rows columns"]:
    """Average Grad-CAM++'s derivatives over noisy copies of the image before its weights are formed.

    The ReLU is applied to the mean gradient, and the numerator is the second derivative as in Grad-CAM++ (the
    paper's equation prints the first derivative there; torch-cam corrects it too). Defaults are torch-cam's.

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
