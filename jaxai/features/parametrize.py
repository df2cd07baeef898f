"""Parametrizations: the optimised variables, and how they become an image in [0, 1].

The space in which an optimizer takes its steps determines the result: in Fourier coefficients of decorrelated
colours steepest ascent favours natural spectra, in pixels it finds noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from .._frame import checks

# Square root of the covariance of the colours of ImageNet's pixels, as Lucid states it.
_COLOR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOR_MATRIX = _COLOR_ROOT / np.linalg.norm(_COLOR_ROOT, axis=0).max()


@runtime_checkable
class Parametrization(Protocol):
    """A map from parameters to images: a pytree whose arrays (such as a spectrum) are data of the loop.

    `init(key, shape)` draws the parameters of one image of shape (rows, columns, channels); `render(params,
    shape)` makes the image; `encode(image)` returns parameters that render (close to) an image in [0, 1].
    """

    def init(self, key: jax.Array, shape: tuple[int, int, int]) -> Any: ...  # noqa: D102
    def render(self, params: Any, shape: tuple[int, int, int]) -> jax.Array: ...  # noqa: D102
    def encode(self, image: jax.Array) -> Any: ...  # noqa: D102


def correlate_colors(x: jax.Array) -> jax.Array:
    """Turn decorrelated colours into RGB; images of other than three channels pass through."""
    return x if x.shape[-1] != 3 else x @ jnp.asarray(COLOR_MATRIX.T, x.dtype)


def decorrelate_colors(x: jax.Array) -> jax.Array:
    """Invert `correlate_colors`."""
    return x if x.shape[-1] != 3 else x @ jnp.asarray(np.linalg.inv(COLOR_MATRIX.T), x.dtype)


def frequencies(height: int, width: int) -> np.ndarray:
    """Return the spatial frequency of each coefficient of a real 2-d Fourier transform, cycles per pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))


def logit(image: jax.Array, margin: float = 1e-3) -> jax.Array:
    """Invert the sigmoid; black and white are brought `margin` inside of [0, 1]."""
    image = jnp.clip(image, margin, 1 - margin)
    return jnp.log(image) - jnp.log1p(-image)


class _Squashed:
    """Base of parametrizations with a free array: correlated colours and a sigmoid."""

    decorrelate: bool

    def free(self, params: Any, shape: tuple[int, int, int]) -> jax.Array:
        """Return the array of real numbers from which colours are made."""
        raise NotImplementedError

    def squash(self, free: jax.Array) -> jax.Array:
        """Turn free numbers into colours in [0, 1]."""
        return jax.nn.sigmoid(correlate_colors(free) if self.decorrelate else free)

    def unsquash(self, image: jax.Array) -> jax.Array:
        """Invert `squash`."""
        return decorrelate_colors(logit(image)) if self.decorrelate else logit(image)

    def render(self, params: Any, shape: tuple[int, int, int]) -> jax.Array:
        """Return the image that parameters make."""
        return self.squash(self.free(params, shape))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Pixels(_Squashed):
    """Free pixels, squashed by a sigmoid.

    Attributes:
        std: Standard deviation of the start.
        decorrelate: Whether the channels are decorrelated colours.
    """

    std: float = 0.01
    decorrelate: bool = True

    def init(self, key, shape):
        return self.std * jax.random.normal(key, shape, jnp.float32)

    def free(self, params, shape):
        return params

    def encode(self, image):
        return self.unsquash(image)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Fourier(_Squashed):
    """Coefficients of a real Fourier transform, scaled so that low frequencies move fast.

    A coefficient is multiplied by sqrt(height width) pivot^(decay - 1) / max(f, 1 / max(height,
    width))^decay, the image by a quarter. Lucid has decay 1, with which spectra come out as steep as f^-0.9;
    those of photographs fall as f^-1.6 or so, and images made with decay 1.5 are recognised by other networks
    more often (docs/gallery).

    Attributes:
        std: Standard deviation of the real and imaginary parts at the start.
        decay: Exponent of the scale.
        decorrelate: Whether the channels are decorrelated colours.
        pivot: The frequency, in cycles per pixel, whose scale is the same for every decay.
    """

    std: float = 0.01
    decay: float = 1.5
    decorrelate: bool = True
    pivot: float = 0.05

    def scale(self, height: int, width: int) -> np.ndarray:
        """Return the factors of the coefficients, [height, width // 2 + 1]."""
        floor = 1 / max(height, width)
        steep = np.maximum(frequencies(height, width), floor) ** self.decay
        return np.sqrt(height * width) * self.pivot ** (self.decay - 1) / steep

    def init(self, key, shape):
        height, width, channels = shape
        return self.std * jax.random.normal(key, (2, channels, height, width // 2 + 1), jnp.float32)

    def free(self, params, shape):
        height, width, _ = shape
        scale = jnp.asarray(self.scale(height, width), params.dtype)
        spectrum = jax.lax.complex(params[0] * scale[None], params[1] * scale[None])
        return jnp.fft.irfft2(spectrum, (height, width)).transpose(1, 2, 0) / 4

    def encode(self, image):
        height, width, _ = image.shape
        free = self.unsquash(image).transpose(2, 0, 1)
        spectrum = jnp.fft.rfft2(free)
        scale = jnp.asarray(4 / self.scale(height, width), free.dtype)
        return jnp.stack([spectrum.real, spectrum.imag]) * scale[None, None]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Laplacian(_Squashed):
    """A pyramid: the sum of images of half, a quarter, ... of the size, enlarged linearly.

    Attributes:
        levels: Number of sizes, of which the first is the image's own.
        std: Standard deviation of the start of each.
        decorrelate: Whether the channels are decorrelated colours.
    """

    levels: int = 4
    std: float = 0.01
    decorrelate: bool = True

    def __post_init__(self):
        checks.positive(self.levels, "levels")

    def _sizes(self, shape):
        return [tuple(max(1, n // 2**level) for n in shape[:2]) for level in range(self.levels)]

    def init(self, key, shape):
        keys = jax.random.split(key, self.levels)
        return tuple(
            self.std * jax.random.normal(k, (*size, shape[2]), jnp.float32)
            for k, size in zip(keys, self._sizes(shape), strict=True)
        )

    def free(self, params, shape):
        return sum(jax.image.resize(level, shape, "linear") for level in params)

    def encode(self, image):
        free = self.unsquash(image)
        rest = [jnp.zeros((*size, image.shape[2]), jnp.float32) for size in self._sizes(image.shape)[1:]]
        return (free, *rest)


@jax.tree_util.register_static
@dataclass(frozen=True)
class CPPN:
    """A small network from a pixel's coordinates to its colour: images without a grid, smooth at any size.

    Coordinates run from -sqrt(3) to sqrt(3); each layer is dense with the activations atan(x) / 0.67 and
    atan(x)^2 / 0.6 side by side; the last starts at zero, so every image starts grey.

    Attributes:
        width: Units per layer.
        layers: Number of layers before the last.
        symmetric: Whether colours depend on the distance from the middle column and row alone.
    """

    width: int = 24
    layers: int = 8
    symmetric: bool = False

    def init(self, key, shape):
        keys = jax.random.split(key, self.layers)
        params, inputs = [], 2
        for k in keys:
            # Variance scaling by the fan-in, truncated at two deviations as the reference's initializer.
            deviation = np.sqrt(1 / inputs) / 0.87962566
            kernel = deviation * jax.random.truncated_normal(k, -2, 2, (inputs, self.width), jnp.float32)
            params.append((kernel, jnp.zeros(self.width, jnp.float32)))
            inputs = 2 * self.width
        params.append((jnp.zeros((inputs, shape[2]), jnp.float32), jnp.zeros(shape[2], jnp.float32)))
        return tuple(params)

    def render(self, params, shape):
        rows, columns = (jnp.linspace(-(3**0.5), 3**0.5, n, dtype=jnp.float32) for n in shape[:2])
        x = jnp.stack(jnp.meshgrid(columns, rows), -1)
        x = jnp.abs(x) if self.symmetric else x
        for kernel, bias in params[:-1]:
            x = jnp.arctan(x @ kernel + bias)
            x = jnp.concatenate([x / 0.67, jnp.square(x) / 0.6], -1)
        kernel, bias = params[-1]
        return jax.nn.sigmoid(x @ kernel + bias)

    def encode(self, image):
        raise ValueError("a CPPN cannot start from a photo: choose Fourier(), Pixels() or Laplacian()")


@jax.tree_util.register_static
@dataclass(frozen=True)
class Shared:
    """An individual part per image, plus coarse parts that all copies of a run share.

    The common content of the copies goes into the shared part, so that they align (Lucid's recipe for
    interpolations and for separating facets of a channel).

    Attributes:
        base: The parametrization of each image's own part: Fourier, Pixels or Laplacian.
        divisors: The shared images' sizes, as divisors of the image's.
        std: Standard deviation of their start.
    """

    base: Fourier | Pixels | Laplacian = Fourier()
    divisors: tuple[int, ...] = (2, 4, 8, 16)
    std: float = 0.01

    def init_group(self, key: jax.Array, shape: tuple[int, int, int], copies: int) -> Any:
        """Draw the parameters of a run of several images."""
        own, *shared = jax.random.split(key, 1 + len(self.divisors))
        parts = tuple(
            self.std
            * jax.random.normal(k, (max(1, shape[0] // n), max(1, shape[1] // n), shape[2]), jnp.float32)
            for k, n in zip(shared, self.divisors, strict=True)
        )
        return init_group(self.base, own, shape, copies), parts

    def render_group(self, params: Any, shape: tuple[int, int, int]) -> jax.Array:
        """Return the images of a run, [copies, rows, columns, channels]."""
        own, parts = params
        free = jax.vmap(lambda p: self.base.free(p, shape))(own)
        coarse = sum((jax.image.resize(part, shape, "linear") for part in parts), jnp.zeros((), jnp.float32))
        return self.base.squash(free + coarse)

    def encode_group(self, image: jax.Array, copies: int) -> Any:
        """Return parameters that render an image in all copies; the shared parts are zero."""
        rows, columns, channels = image.shape
        parts = tuple(
            jnp.zeros((max(1, rows // n), max(1, columns // n), channels), jnp.float32) for n in self.divisors
        )
        return encode_group(self.base, image, copies), parts


def init_group(parametrization: Any, key: jax.Array, shape: tuple[int, int, int], copies: int) -> Any:
    """Draw the parameters of a run of `copies` images; copy i has the key `fold_in(key, i)`."""
    if isinstance(parametrization, Shared):
        return parametrization.init_group(key, shape, copies)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(copies))
    return jax.vmap(lambda k: parametrization.init(k, shape))(keys)


def render_group(parametrization: Any, params: Any, shape: tuple[int, int, int]) -> jax.Array:
    """Return the images of a run, [copies, rows, columns, channels]."""
    if isinstance(parametrization, Shared):
        return parametrization.render_group(params, shape)
    return jax.vmap(lambda p: parametrization.render(p, shape))(params)


def encode_group(parametrization: Any, image: jax.Array, copies: int) -> Any:
    """Return parameters of a run whose copies all start from an image in [0, 1]."""
    if isinstance(parametrization, Shared):
        return parametrization.encode_group(image, copies)
    params = parametrization.encode(image)
    return jax.tree.map(lambda p: jnp.broadcast_to(p, (copies, *p.shape)), params)


def by_name(value: Any) -> Parametrization:
    """Return a parametrization given as one, or by its name: pixels, fourier, laplacian, cppn."""
    names: dict[str, Callable[[], Any]] = {
        "fourier": Fourier,
        "pixels": Pixels,
        "laplacian": Laplacian,
        "cppn": CPPN,
    }
    if isinstance(value, str):
        return names[checks.choice(value, "parametrization", tuple(names))]()
    if not isinstance(value, Shared) and not all(
        hasattr(value, name) for name in ("init", "render", "encode")
    ):
        raise TypeError(
            f"`parametrization` must be a name or have init, render and encode; got {type(value).__name__}"
        )
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value:
        raise TypeError(
            f"a parametrization must be a pytree; register {type(value).__name__} with"
            " jax.tree_util.register_static if it has no arrays"
        )
    return cast(Parametrization, value)
