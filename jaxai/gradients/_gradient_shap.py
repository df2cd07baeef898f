"""Integrated gradients over a distribution of baselines, sampled at one random point per path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cpu import threefry
from .._frame import batching, checks
from .._frame import noisy as _noise
from .._frame import targets as _targets
from .._frame.describe import backward_for_each, describes
from ._paths import integrate


def _random_line(image, own, shared, sample):
    baselines, key = shared
    index, weight = sample
    reference, position, wobble = jax.random.split(jax.random.fold_in(key, index), 3)
    start = baselines[jax.random.randint(reference, (), 0, baselines.shape[0], jnp.int32)]
    noisy = image + own.reshape(1, 1, 1) * threefry.normal(wobble, image.shape).astype(image.dtype)
    difference = noisy - start
    return start + jax.random.uniform(position, (), jnp.float32).astype(
        image.dtype
    ) * difference, weight * difference


@describes(
    title="GradientSHAP",
    result="pixels",
    cost=backward_for_each("num_samples"),
    signed=True,
)
def gradient_shap(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    baselines: Float[Array, "baselines *positions channels"],
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.0,
    noise_unit: str = "range",
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Average gradient x (image - baseline) at random points between noisy images and random baselines.

    Args:
        baselines: A sample of the data, in the model's input space.
        num_samples: Random points per image.
        noise: Standard deviation of Gaussian noise added to the image.

    Returns:
        Attributions [batch, height, width, channels]; [batch, k, ...] for k classes per image. The
        expectation of their sum is the score minus the mean score of the baselines.

    References:
        Lundberg, Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017, arXiv 1705.07874;
        the method as in the shap and Captum libraries' GradientExplainer and GradientShap.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> key, baselines = jax.random.key(0), jnp.zeros((2, 2, 2, 1))
        >>> jaxai.gradient_shap(net, x, 0, baselines=baselines, key=key).round(4).ravel().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    baselines = checks.images(baselines, "baselines", plane=False)
    if baselines.shape[1:] != images.shape[1:]:
        raise ValueError(f"`baselines` must be images of shape {images.shape[1:]}; got {baselines.shape[1:]}")
    num_samples = checks.positive(num_samples, "num_samples")
    return integrate(
        model,
        images,
        targets,
        _noise.scale(images, noise, noise_unit)[:, 0],
        (baselines, checks.key(key)),
        (jnp.arange(num_samples), jnp.full(num_samples, 1 / num_samples, jnp.float32)),
        path=_random_line,
        batch_size=batching.chunk_size(batch_size, model, images),
    )


@describes(
    title="expected gradients",
    result="pixels",
    cost=backward_for_each("num_samples"),
    signed=True,
)
def expected_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    baselines: Float[Array, "baselines *positions channels"],
    key: jax.Array,
    num_samples: int = 200,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Average integrated gradients over baselines drawn from the data, with one random point per draw.

    Args:
        baselines: A sample of the data.
        num_samples: Random points per image.

    References:
        Erion et al.: Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients. Nature Machine Intelligence 2021, arXiv 1906.10670, equation 2.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> key, baselines = jax.random.key(0), jnp.zeros((2, 2, 2, 1))
        >>> found = jaxai.expected_gradients(net, x, 0, baselines=baselines, key=key)
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '3.00 3.00 3.00 3.00'
    """
    return gradient_shap(
        model,
        images,
        targets,
        baselines=baselines,
        key=key,
        num_samples=num_samples,
        batch_size=batch_size,
    )
