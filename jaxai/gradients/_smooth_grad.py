"""Smoothing of any method by noise: means, mean squares, variances and standard errors."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching, checks
from .._frame import noisy as _noise
from .._frame import options as _options
from .._frame import targets as _targets
from .._frame.contract import completed
from .._frame.describe import backward_for_each, describes
from .._frame.results import brief
from ._saliency import saliency


class Moments(NamedTuple):
    """Moments of a method's maps over noisy copies of an image, each of the maps' shape.

    Attributes:
        mean: SmoothGrad, of saliency.
        mean_square: SmoothGrad-squared.
        variance: VarGrad: the mean square minus the square of the mean.
        standard_error: Standard error of the mean: the standard deviation of the mean over keys.
    """

    mean: jax.Array
    mean_square: jax.Array
    variance: jax.Array
    standard_error: jax.Array

    __repr__ = brief


@completed
def smooth_moments(
    method: Callable[..., Any],
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.15,
    noise_unit: str = "range",
    batch_size: int | None = None,
    **options: Any,
) -> Moments:
    """Run a method on noisy copies of the images and return the moments of its maps.

    Args:
        method: Any method of the library, called as `method(model, images, targets, **options)`: its maps'
            first axis is the batch.

    Returns:
        The moments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: (x**2).sum((1, 2))
        >>> found = jaxai.gradients.smooth_moments(
        ...     jaxai.saliency, model, jnp.ones((1, 4, 4, 1)), 0, key=jax.random.key(0), noise=0.5,
        ...     noise_unit="absolute",
        ... )
        >>> found.mean.shape, bool(found.variance.min() > 0)
        ((1, 4, 4, 1), True)
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    checks.choice(noise_unit, "noise_unit", _noise.UNITS)
    static, arrays = _options.split(options)
    return _smooth(
        model,
        images,
        targets,
        _noise.scale(images, noise, noise_unit),
        checks.key(key),
        arrays,
        method=_targets.as_model(method),
        num_samples=checks.positive(num_samples, "num_samples"),
        batch_size=batching.chunk_size(batch_size, model, images),
        static=static,
    )


@partial(jax.jit, static_argnames=("num_samples", "batch_size", "static"))
def _smooth(model, images, targets, deviation, key, arrays, *, method, num_samples, batch_size, static):
    def chunk(x, t, spread):
        t = t.frozen(model(x))
        batch = x.shape[0]

        def run(indices):
            copies = _noise.copies(x, spread, key, indices)
            flat = copies.reshape(-1, *x.shape[1:])
            maps = method(model, flat, t.tile(indices.shape[0]).plain, **dict(static), **arrays)
            return maps.astype(jnp.float32).reshape(-1, batch, *maps.shape[1:])

        def some(indices, valid):
            maps, count = run(indices), valid.sum()
            mean = jnp.tensordot(valid, maps, axes=1) / count
            return count, mean, jnp.tensordot(valid, (maps - mean[None]) ** 2, axes=1)

        size = batching.groups(batch_size, batch)
        _, mean, squares = batching.sum_chunks(some, jnp.arange(num_samples), batch_size=size, merge=_merge)
        variance = squares / num_samples
        error = jnp.sqrt(variance / max(num_samples - 1, 1))
        return Moments(mean, mean**2 + variance, variance, error)

    return batching.map_images(chunk, images, targets, deviation, batch_size=batch_size)


def _merge(some, others):
    """Return count, mean and squared deviations of two groups together (Chan, Golub and LeVeque 1983).

    This keeps variances far smaller than the squared mean accurate in float32.
    """
    (count, mean, squares), (number, average, spread) = some, others
    total, change = count + number, average - mean
    mean = mean + change * (number / total)
    return total, mean, squares + spread + change**2 * (count * number / total)


STATISTICS = Moments._fields


@completed
def smooth(
    method: Callable[..., Any],
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    key: jax.Array,
    statistic: str = "mean",
    num_samples: int = 50,
    noise: float = 0.15,
    noise_unit: str = "range",
    batch_size: int | None = None,
    **options: Any,
) -> Float[Array, "batch *map"]:
    """Average any method's maps over noisy copies of the image.

    Args:
        method: Any method of the library, called as `method(model, images, targets, **options)`: its maps'
            first axis is the batch.
        statistic: `"mean"`, `"mean_square"`, `"variance"` or `"standard_error"` (of the mean).

    Returns:
        An array like the method's own.

    References:
        Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017, arXiv 1706.03825, section 3.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> options = {"key": jax.random.key(0), "num_samples": 8}
        >>> jaxai.gradients.smooth(jaxai.input_x_gradient, net, x, 0, **options).shape
        (1, 2, 2, 1)
    """
    checks.choice(statistic, "statistic", STATISTICS)
    moments = smooth_moments(
        method,
        model,
        images,
        targets,
        key=key,
        num_samples=num_samples,
        noise=noise,
        noise_unit=noise_unit,
        batch_size=batch_size,
        **options,
    )
    return getattr(moments, statistic)


@describes(
    title="SmoothGrad",
    result="pixels",
    cost=backward_for_each("num_samples"),
    signed=True,
)
def smooth_grad(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.15,
    noise_unit: str = "range",
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Average the signed gradient over noisy copies of the image.

    PAIR's library squares the gradients by default, which is `smooth_grad_squared` here.

    Args:
        noise: Standard deviation of the noise; the paper finds 0.1 to 0.2 of the range best.

    Returns:
        Signed gradients [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    References:
        Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017, arXiv 1706.03825, section 3.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> jaxai.smooth_grad(net, x, 0, key=jax.random.key(0), num_samples=8).ravel().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    return smooth(
        saliency,
        model,
        images,
        targets,
        key=key,
        num_samples=num_samples,
        noise=noise,
        noise_unit=noise_unit,
        batch_size=batch_size,
    )


@describes(
    title="SmoothGrad-squared",
    result="pixels",
    cost=backward_for_each("num_samples"),
)
def smooth_grad_squared(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.15,
    noise_unit: str = "range",
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Average the squared gradient over noisy copies of the image.

    Returns:
        Values of zero or more [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    References:
        Hooker et al.: A Benchmark for Interpretability Methods in Deep Neural Networks. NeurIPS 2019,
        arXiv 1806.10758, section 4.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> jaxai.smooth_grad_squared(net, x, 0, key=jax.random.key(0), num_samples=8).ravel().tolist()
        [9.0, 9.0, 9.0, 9.0]
    """
    return smooth(
        saliency,
        model,
        images,
        targets,
        key=key,
        statistic="mean_square",
        num_samples=num_samples,
        noise=noise,
        noise_unit=noise_unit,
        batch_size=batch_size,
    )


@describes(
    title="VarGrad",
    result="pixels",
    cost=backward_for_each("num_samples"),
)
def var_grad(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.15,
    noise_unit: str = "range",
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Return the variance of the gradient over noisy copies of the image (divided by n, as Captum does).

    Returns:
        Values of zero or more [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    References:
        Adebayo et al.: Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
        Values. ICLR Workshop 2018, arXiv 1810.03307, section 2.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> jaxai.var_grad(net, x, 0, key=jax.random.key(0), num_samples=8).ravel().tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    return smooth(
        saliency,
        model,
        images,
        targets,
        key=key,
        statistic="variance",
        num_samples=num_samples,
        noise=noise,
        noise_unit=noise_unit,
        batch_size=batch_size,
    )
