"""ROAD: a model's confidence and accuracy after imputing shares of the pixels from their neighbours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._frame import checks
from .._frame.contract import like
from .._frame.results import brief, picture, plot, save, to_html
from .._frame.targets import Targets
from . import _hidden, _order
from ._removal import deletion


class Road(NamedTuple):
    """Confidence and accuracy as pixels are removed and imputed, in both orders.

    Attributes:
        gain: The mean over shares of the confidence least first minus most first, float32 [batch] ([batch, k]
            for k targets per image). pytorch-grad-cam's ROADCombined is half of it.
        most_first: Confidence without the most relevant pixels, float32 [batch, shares] or [batch, k,
            shares].
        least_first: The same, the least relevant pixels gone.
        most_first_right: 1 where the target is still the top class, 0 elsewhere, NaN for callable targets.
        least_first_right: The same without the least relevant pixels. Means over many images are accuracies.
        share: The shares removed, float32 [shares].
    """

    gain: Float[Array, "batch *k"]
    most_first: Float[Array, "batch *k shares"]
    least_first: Float[Array, "batch *k shares"]
    most_first_right: Float[Array, "batch *k shares"]
    least_first_right: Float[Array, "batch *k shares"]
    share: Float[Array, " shares"]

    __repr__ = brief
    plot, save, to_html, _repr_png_ = plot, save, to_html, picture


@like(deletion)
def road(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    maps: Float[ArrayLike, "batch ..."],
    targets: Targets = None,
    *,
    key: jax.Array,
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    noise: float = 0.01,
    fill: Any = "linear",
    probability: bool = True,
    batch_size: int | None = None,
) -> Road:
    """Return confidence and accuracy with shares of the pixels removed and imputed; a higher gain is better.

    A removed pixel is the weighted mean of its neighbours (1/6 at an edge, 1/12 at a corner) plus noise, so
    that neither the border nor the shape of the removed region reveals the class. The linear system is solved
    by conjugate gradients.

    Args:
        key: Randomness of the noise; a typed key.
        shares: Shares of pixels removed, each between 0 and 1; by default pytorch-grad-cam's.
        noise: Standard deviation of the noise added to imputed pixels: the authors' 0.01.

    Returns:
        `Road` with `gain`, `most_first`, `least_first`, `most_first_right`, `least_first_right` and `share`;
        NaN for a constant map.

    Raises:
        ValueError: If a share is not between 0 and 1.

    References:
        Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods. ICML 2022, arXiv
        2202.00449, section 4.2.
    """
    shares = tuple(checks.number(share, "shares", "(0, 1)") for share in shares)
    if not shares:
        raise ValueError("`shares` must hold at least one number; got none")
    noise = checks.number(noise, "noise", "[0, inf]") if fill == "linear" else 0.0
    asked = _hidden.ask(
        model,
        images,
        maps,
        targets,
        fill=fill,
        batch_size=batch_size,
        probability=probability,
        key=checks.key(key),
        noise=noise,
    )
    pixels = _hidden.unit_count(asked)
    # A share of 0.29 of 100 pixels is 29 of them, although 0.29 * 100 is less in floating point.
    taken = jnp.asarray(np.array([int(share * pixels + 1e-6) for share in shares], np.int32))
    taken = jnp.broadcast_to(taken, (asked.images.shape[0], len(shares)))
    values, right = _order.along(asked, taken, least_first=(False, True), top=True)
    most, least = values[..., 0, :], values[..., 1, :]
    return Road((least - most).mean(-1), most, least, right[..., 0, :], right[..., 1, :], taken[0] / pixels)
