"""A low-pass filter for attribution maps."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame.describe import describes, one_backward


@describes(title="FORGrad", result="heatmap", cost=one_backward, signed=True)
def forgrad(
    maps: Float[Array, "*batch height width"], *, cutoff: float = 15.0
) -> Float[Array, "*batch height width"]:
    """Remove the high frequencies of maps: in gradients they come from strides and pools, not the image.

    Frequencies are in cycles per image along each axis; those outside a circle of radius `cutoff` are
    removed. The filter is linear and keeps signs; Xplique applies it to the magnitude of the mean over the
    channels and returns the magnitude of the result.

    Args:
        maps: Any leading axes.
        cutoff: Cutoff frequency in cycles per image, positive; the paper finds about 15 best for images of
            224 x 224.

    Returns:
        Maps of the same shape.

    Raises:
        ValueError: If the cutoff is not positive or there are fewer than two axes.

    References:
        Muzellec et al.: Saliency strikes back: How filtering out high frequencies improves white-box
        explanations. ICML 2024, arXiv 2307.09591, equation 3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> board = jnp.indices((8, 8)).sum(0) % 2.0
        >>> jaxai.forgrad(board, cutoff=2.0).round(3)[0].tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    maps = jnp.asarray(maps)
    if maps.ndim < 2:
        raise ValueError(f"`maps` must be [..., height, width]; got shape {maps.shape}")
    if not cutoff > 0:
        raise ValueError(f"`cutoff` must be positive; got {cutoff!r}")
    height, width = maps.shape[-2:]
    rows, columns = jnp.fft.fftfreq(height) * height, jnp.fft.rfftfreq(width) * width
    kept = jnp.hypot(rows[:, None], columns) <= cutoff + 1e-4
    return jnp.fft.irfft2(jnp.fft.rfft2(maps) * kept, s=(height, width))
