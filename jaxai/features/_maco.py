"""MACO: optimisation of only the phase of an image's spectrum, with the magnitude of natural images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float, Int

from .._frame import checks
from .._frame.contract import completed
from . import parametrize
from ._visualize import Visualization, visualize
from .objectives import Objective
from .transforms import Transforms

# a / f^b for each decorrelated channel: the fit of `fit_power_law` to `natural_spectrum` of the photographs
# chelsea, coffee, rocket and astronaut of scikit-image, their centre squares resized to 256 pixels.
NATURAL = ((8.98, 1.80), (15.95, 1.50), (21.01, 1.31))


@register_dataclass
@dataclass(frozen=True)
class Phase:
    """Images with a fixed magnitude spectrum and free phase.

    As in the authors' implementation, the phases are standardised, and so is the image before its colours are
    correlated and squashed.

    Attributes:
        magnitude: [channels, height, width // 2 + 1].
        standardize: Whether to standardise; otherwise phases and scale are unchanged.
    """

    magnitude: Float[Array, "channels height half"]
    standardize: bool = field(default=True, metadata={"static": True})

    def init(self, key, shape):
        self._check(shape)
        return jax.random.normal(key, self.magnitude.shape, jnp.float32)

    def _check(self, shape):
        expected = (shape[2], shape[0], shape[1] // 2 + 1)
        if self.magnitude.shape != expected:
            raise ValueError(
                f"the magnitude spectrum of images {shape} must be {expected}; got {self.magnitude.shape}"
            )

    def free(self, params, shape):
        """Return the image before its colours are correlated."""
        phase = _standardized(params) if self.standardize else params
        magnitude = jnp.asarray(self.magnitude, phase.dtype)
        spectrum = jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
        image = jnp.fft.irfft2(spectrum, shape[:2]).transpose(1, 2, 0)
        return _standardized(image) if self.standardize else image

    def render(self, params, shape):
        return jax.nn.sigmoid(parametrize.correlate_colors(self.free(params, shape)))

    def encode(self, image):
        self._check(image.shape)
        free = parametrize.decorrelate_colors(parametrize.logit(image)).transpose(2, 0, 1)
        return jnp.angle(jnp.fft.rfft2(free))


def _standardized(x):
    return (x - x.mean()) / (x.std() + 1e-5)


def natural_spectrum(
    photos: Float[Array, "batch height width channels"],
) -> Float[Array, "channels height half"]:
    """Return the mean magnitude spectrum of photos in [0, 1], as decorrelated logits of their colours.

    Args:
        photos: Float in [0, 1], [batch, height, width, channels].
    """
    photos = checks.images(photos, "photos")
    free = parametrize.decorrelate_colors(parametrize.logit(photos, 1 / 512))
    return jnp.abs(jnp.fft.rfft2(free.transpose(0, 3, 1, 2))).mean(0)


def fit_power_law(spectrum: Float[Array, "channels height half"]) -> tuple[tuple[float, float], ...]:
    """Fit a / f^b to each channel of a magnitude spectrum, by least squares of the logarithms.

    Frequencies from above zero to half a cycle per pixel have equal weight.

    Args:
        spectrum: Magnitudes of the half plane that `rfft2` gives, as `natural_spectrum` returns them.

    Returns:
        (a, b) for each channel.
    """
    measured = np.asarray(spectrum)
    height, half = measured.shape[1:]
    f = _frequencies(height, half)
    inside = (f > 0) & (f <= 0.5)
    fits = (np.polyfit(np.log(f[inside]), np.log(c[inside] + 1e-12), 1) for c in measured)
    return tuple((float(np.exp(a)), float(-slope)) for slope, a in fits)


def _frequencies(height, half):
    return np.hypot(np.fft.fftfreq(height)[:, None], np.arange(half) / (2 * half - 2 or 1))


def power_law_spectrum(
    size: tuple[int, int], *, law: Sequence[tuple[float, float]] = NATURAL
) -> Float[Array, "channels height half"]:
    """Return the magnitudes a / f^b of images of a size (rows, columns); zero for the mean.

    Args:
        size: Rows and columns.
        law: (a, b) for each channel.
    """
    f = parametrize.frequencies(*size)
    safe = np.where(f > 0, f, 1)
    return jnp.asarray(np.stack([np.where(f > 0, a / safe**b, 0) for a, b in law]), jnp.float32)


@cache
def _nadam(rate: float = 1.0) -> optax.GradientTransformation:
    return optax.nadam(rate)


@completed
def maco(
    model: Callable[..., Any],
    objective: str | Objective | Callable[..., Any] | Sequence[Any],
    *,
    key: jax.Array,
    size: int | tuple[int, int] = 224,
    steps: int = 256,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    spectrum: Float[Array, "channels height half"] | Sequence[tuple[float, float]] | None = None,
    input_size: int | None = None,
    crops: int = 32,
    crop: tuple[float, float] = (0.05, 0.50),
    noise: float = 0.08,
    optimizer: optax.GradientTransformation | None = None,
    snapshots: Sequence[int] = (),
    indices: Int[Array, " runs"] | Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Visualization:
    """Visualize features by optimising phases alone under a fixed magnitude spectrum (MACO).

    Each step looks at `crops` random boxes of the image, whose side shrinks along the run from half of the
    image to a twentieth, enlarged to the network's input, with noise. The `importance` of the result is the
    paper's transparency map: show the images with it as their opacity.

    Args:
        objective: As for `visualize`.
        spectrum: Magnitudes [3, height, width // 2 + 1], as `natural_spectrum` measures them in photos of
            this size; or (a, b) of the power law a / f^b for each channel, as `fit_power_law` fits them; None
            is a law fitted to four photographs.
        input_size: Side of the network's input in pixels; None means `size`.
        crops: Boxes per step.
        crop: Side of the boxes at the end and at the start, as parts of the image.
        noise: Standard deviation of normal noise, and amplitude of uniform noise, on what the network sees.
        optimizer: An Optax optimizer; None is Nadam 1.0.
        snapshots: Steps after which to keep the images.
        indices: Numbers of the runs, as for `visualize`.

    Returns:
        A `Visualization`.

    Raises:
        ValueError: If a spectrum does not fit the size.

    References:
        Fel et al.: Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
        Optimization. NeurIPS 2023, arXiv 2306.06805.

    Example:
        >>> import jax
        >>> import jaxai
        >>> net = jaxai.chain({"blue": lambda x: jax.nn.relu(x[..., 2:])})
        >>> key = jax.random.key(0)
        >>> seen = jaxai.maco(net, "blue:0", key=key, size=16, steps=4)
        >>> seen.images.shape, seen.history.shape
        ((1, 16, 16, 3), (1, 4))
    """
    rows, columns = checks.pair(size, "size")
    law = NATURAL if spectrum is None else spectrum
    if isinstance(law, (jax.Array, np.ndarray)) and np.ndim(law) == 3:
        magnitude = jnp.asarray(law, jnp.float32)
    elif np.shape(law) == (3, 2):
        magnitude = power_law_spectrum((rows, columns), law=[(float(a), float(b)) for a, b in law])
    else:
        raise ValueError(
            "`spectrum` must be magnitudes [3, height, width // 2 + 1] or (a, b) for each of 3 channels;"
            f" got shape {np.shape(law)}"
        )
    out = input_size if input_size is not None else (rows if rows == columns else None)
    return visualize(
        model,
        objective,
        key=key,
        size=(rows, columns),
        steps=steps,
        normalize=normalize,
        parametrization=Phase(magnitude),
        transforms=Transforms(crop=crop, noise=noise, output=out),
        optimizer=_nadam() if optimizer is None else optimizer,
        redirect=0,
        crops=crops,
        anneal=True,
        snapshots=snapshots,
        indices=indices,
        batch_size=batch_size,
    )
