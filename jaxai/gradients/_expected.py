"""Integrated gradients over a distribution of baselines, one random point of a random path at a time."""

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
    references, key = shared
    index, weight = sample
    reference, position, wobble = jax.random.split(jax.random.fold_in(key, index), 3)
    start = references[jax.random.randint(reference, (), 0, references.shape[0], jnp.int32)]
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
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    references: Float[Array, "references height width channels"],
    key: jax.Array,
    num_samples: int = 50,
    noise: float = 0.0,
    noise_unit: str = "range",
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Average gradient x (image - reference) at random points between noisy images and random references.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain; None means the top class of the image itself. Logits are differentiated.
        references: A sample of the data, in the model's input space.
        key: Typed PRNG key; sample i depends on it and i alone and is shared by the images.
        num_samples: Random points for each image.
        noise: Standard deviation of normal noise added to the image.
        noise_unit: `"range"`: a fraction of the image's maximum minus minimum; `"absolute"`: Captum's
            `stdevs`.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        Attributions [batch, height, width, channels]; [batch, k, ...] for k classes an image. Their sum is
        the score minus the mean score of the references in expectation.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or a class or unit does not exist.

    References:
        Lundberg, Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017, arXiv 1705.07874;
        the method as in the shap and Captum libraries' GradientExplainer and GradientShap.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> key, references = jax.random.key(0), jnp.zeros((2, 2, 2, 1))
        >>> jaxai.gradient_shap(net, x, 0, references=references, key=key).round(4).ravel().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    references = checks.images(references, "references")
    if references.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"`references` must be images of shape {images.shape[1:]}; got {references.shape[1:]}"
        )
    num_samples = checks.positive(num_samples, "num_samples")
    return integrate(
        model,
        images,
        targets,
        _noise.scale(images, noise, noise_unit)[:, 0],
        (references, checks.key(key)),
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
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    references: Float[Array, "references height width channels"],
    key: jax.Array,
    num_samples: int = 200,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Average integrated gradients over baselines drawn from the data, by one random point for each draw.

    Args:
        model: As in `gradient_shap`, whose noise is zero here, like the other arguments.
        images: Model input.
        targets: What to explain.
        references: A sample of the data.
        key: Typed PRNG key.
        num_samples: Random points for each image.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        Attributions [batch, height, width, channels]; [batch, k, ...] for k classes an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit or a class does not exist.

    References:
        Erion et al.: Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients. Nature Machine Intelligence 2021, arXiv 1906.10670, equation 2.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: 3 * x.sum((1, 2))
        >>> x = jnp.ones((1, 2, 2, 1))
        >>> key, references = jax.random.key(0), jnp.zeros((2, 2, 2, 1))
        >>> found = jaxai.expected_gradients(net, x, 0, references=references, key=key)
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '3.00 3.00 3.00 3.00'
    """
    return gradient_shap(
        model,
        images,
        targets,
        references=references,
        key=key,
        num_samples=num_samples,
        batch_size=batch_size,
    )
