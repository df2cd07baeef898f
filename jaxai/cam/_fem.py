"""FEM: channels weighted by their fraction of outliers."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame.describe import describes, one_forward, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted


def _fem(view: View, *, sigmas: float) -> jax.Array:
    axes = (-3, -2)
    positions, least = math.prod(view.acts.shape[-3:-1]), math.floor(1 + max(sigmas, 0) ** 2) + 1
    # A single value differs most from the rest: by sqrt(positions - 1) standard deviations of all.
    if positions < least:
        raise ValueError(
            f"the layer must have at least {least} positions for a value to be more than {sigmas:g} standard "
            f"deviations above the mean; got {positions}: choose an earlier `layer` or fewer `sigmas`"
        )
    threshold = view.acts.mean(axes, keepdims=True) + sigmas * view.acts.std(axes, keepdims=True)
    weights = (view.acts > threshold).mean(axes, keepdims=True, dtype=jnp.float32)
    return view.for_each_target(weighted(view, weights))


@describes(title="FEM", result="heatmap", cost=one_forward, signed=unless_relu, explains="nothing")
def fem(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    sigmas: float = 2.0,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight each channel by the fraction of its positions far above its mean; not class-specific.

    Args:
        sigmas: Threshold above the mean, in standard deviations. No value lies further above it than the
            square root of the number of positions less one.
        relu: Drop negative values.

    Raises:
        ValueError: The layer has too few positions for any value to be above the threshold.

    References:
        Fuad et al.: Features Understanding in 3D CNNs for Actions Recognition in Video. IPTA 2020,
        doi 10.1109/IPTA50016.2020.9286629.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.zeros((1, 3, 3, 2)).at[0, 1, 1].set(9.0)
        >>> jaxai.fem(net, x, layer="features").ravel().tolist()
        [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    """
    return explain(
        _fem,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        sigmas=float(sigmas),
    )
