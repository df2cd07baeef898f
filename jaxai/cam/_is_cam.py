"""IS-CAM: Score-CAM integrated from nothing to the whole mask."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import Passes, describes, unless_relu
from .._frame.targets import Targets
from ._core import View, explain, weighted
from ._score_cam import _mask_scores


def _integrated_score(view: View, *, num_samples: int) -> jax.Array:
    def change(mask, channel, sample):
        return mask * ((sample + 1) / num_samples)

    return weighted(view, jax.nn.softmax(_mask_scores(view, change, num_samples), axis=-1))


@describes(
    title="IS-CAM",
    result="heatmap",
    cost=lambda o: Passes(1 + o.num_samples * o.channels),
    signed=unless_relu,
)
def is_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    num_samples: int = 10,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Average Score-CAM's scores over masks that grow from 1/n to their full values: integrated Score-CAM.

    Costs `num_samples` forward passes per channel.

    Args:
        num_samples: Steps from nothing to the whole mask.

    References:
        Naidu et al.: IS-CAM: Integrated Score-CAM for axiomatic-based explanations. 2020, arXiv 2010.03023,
        section 3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.is_cam(net, x, 1, layer="features").ravel().tolist()
        [0.5, 2.5, 4.5, 6.5]
    """
    return explain(
        _integrated_score,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        num_samples=checks.positive(num_samples, "num_samples"),
    )
