"""SS-CAM: Score-CAM averaged over noisy masks."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from .._cpu import threefry
from .._frame import checks
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted
from ._score_cam import _mask_scores


def _smoothed_score(view: View, *, key, num_samples: int, noise) -> jax.Array:
    def change(mask, channel, sample):
        own = jax.random.fold_in(jax.random.fold_in(key, sample), channel)
        return mask + noise * threefry.normal(own, mask.shape[1:])[None]

    return weighted(view, jax.nn.softmax(_mask_scores(view, change, num_samples), axis=-1))


@describes(
    title="SS-CAM",
    result="heatmap",
    cost=lambda o: Passes(1 + o.num_samples * o.channels),
    signed=unless_relu,
)
def ss_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 35,
    noise: float = 2.0,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Average Score-CAM's scores over noisy masks before the softmax: smoothed Score-CAM.

    Costs `num_samples` forward passes per channel. Defaults are torch-cam's.

    Args:
        key: Typed PRNG key; the noise depends on it, the sample and the channel.
        num_samples: Noisy masks per channel.
        noise: Standard deviation of the Gaussian noise added to a mask with values 0 to 1.

    References:
        Wang et al.: SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization. 2020,
        arXiv 2006.14255, section 3.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.ss_cam(net, x, 1, layer="features", key=jax.random.key(0)).shape
        (1, 2, 2)
    """
    return explain(
        _smoothed_score,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        key=checks.key(key),
        num_samples=checks.positive(num_samples, "num_samples"),
        noise=float(noise),
    )
