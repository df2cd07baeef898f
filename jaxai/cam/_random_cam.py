"""Random-CAM: a map from random weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import describes, one_forward, unless_relu
from .._frame.targets import Targets
from ._core import View, explain


def _random(view: View, *, key) -> jax.Array:
    weights = jax.random.uniform(key, view.acts.shape[-1:], jnp.float32, -1.0, 1.0)
    return view.for_each_target(view.acts @ weights)


@describes(title="random CAM", result="heatmap", cost=one_forward, signed=unless_relu, explains="nothing")
def random_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Weight the channels at random, uniform in [-1, 1): a baseline for all other maps.

    Args:
        images: Model input; all images of a call get the same weights.
        relu: Drop negative values.

    References:
        As pytorch-grad-cam's RandomCAM.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.random_cam(net, x, 1, layer="features", key=jax.random.key(0)).shape
        (1, 2, 2)
    """
    return explain(
        _random,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        key=checks.key(key),
    )
