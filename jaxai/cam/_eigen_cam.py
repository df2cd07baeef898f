"""Maps of principal components: Eigen-CAM, EigenGradCAM and KPCA-CAM."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.describe import describes, one_forward, one_head, unless_relu
from .._frame.targets import Targets
from ._core import View, explain


@jax.custom_jvp
def principal_axis(gram: Float[Array, "*batch n n"]) -> Float[Array, "*batch n"]:
    """Return the first eigenvector of symmetric matrices times the square root of its eigenvalue.

    Its derivative stays finite where eigenvalues coincide (a constant image), because such pairs are left
    out.
    """
    return _decompose(gram)[2]


def _decompose(gram):
    values, vectors = jnp.linalg.eigh(gram)
    axis = vectors[..., -1] * jnp.sqrt(jnp.maximum(values[..., -1:], 0))
    return values, vectors, axis


@principal_axis.defjvp
def _principal_axis_jvp(primals, tangents):
    (gram,), (change,) = primals, tangents
    values, vectors, axis = _decompose(gram)
    top, size = vectors[..., -1], jnp.sqrt(jnp.maximum(values[..., -1:], 0))
    mixed = jnp.einsum("...ji,...jk,...k->...i", vectors, change, top)
    gap = values[..., -1:] - values
    small = gap <= 1e-6 * jnp.maximum(values[..., -1:], 1e-30)
    turned = jnp.einsum("...ji,...i->...j", vectors, jnp.where(small, 0, mixed / jnp.where(small, 1, gap)))
    grown = jnp.where(size > 0, mixed[..., -1:] / jnp.where(size > 0, 2 * size, 1), 0)
    return axis, size * turned + grown * top


def _first_component(values: jax.Array, project: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Project positions [..., h, w, channels], centred, on their first principal axis."""
    *batch, h, w, channels = values.shape
    rows = values.reshape(*batch, h * w, channels)
    rows = rows - rows.mean(-2, keepdims=True)
    projection = project(rows)
    # The sign of a principal axis is arbitrary: make it agree with the sum of the channels.
    agreement = jnp.sum(projection * rows.sum(-1), axis=-1, keepdims=True)
    return jnp.where(agreement < 0, -projection, projection).reshape(*batch, h, w)


def _linear(rows: jax.Array) -> jax.Array:
    """Project rows [..., n, channels]; decomposes the smaller one of their two matrices of products."""
    if rows.shape[-2] <= rows.shape[-1]:
        return principal_axis(rows @ rows.swapaxes(-1, -2))
    axis = principal_axis(rows.swapaxes(-1, -2) @ rows)
    squares = jnp.sum(axis * axis, axis=-1, keepdims=True)
    unit = axis / jnp.sqrt(jnp.where(squares > 0, squares, 1))
    return jnp.einsum("...nc,...c->...n", rows, unit)


def _eigen(view: View) -> jax.Array:
    return view.for_each_target(_first_component(view.acts, _linear))


@describes(title="Eigen-CAM", result="heatmap", cost=one_forward, signed=unless_relu, explains="nothing")
def eigen_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Project the activations on their first principal axis: the layer's dominant pattern, for no class.

    Activations are centred over positions, as in pytorch-grad-cam. The sign, which the decomposition does not
    determine, is chosen to agree with the sum of the channels.

    Args:
        relu: Keep only what is above the mean.

    References:
        Muhammad, Yeasin: Eigen-CAM: Class Activation Map using Principal Components. IJCNN 2020,
        arXiv 2008.00299.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> found = jaxai.eigen_cam(net, x, 1, layer="features")
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '0.00 0.00 1.41 4.24'
    """
    return explain(
        _eigen, model, images, targets, layer=layer, relu=relu, upsample=upsample, batch_size=batch_size
    )


def _eigen_grad(view: View, *, magnitude: bool) -> jax.Array:
    _, grads = view.gradients()
    return _first_component((jnp.abs(grads) if magnitude else grads) * view.beside(grads), _linear)


@describes(title="EigenGradCAM", result="heatmap", cost=one_head, signed=unless_relu)
def eigen_grad_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    magnitude: bool = False,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Project activations x gradients on their first principal axis: Eigen-CAM specific to the class.

    Args:
        magnitude: Multiply by the gradients' magnitudes: Seg-Eigen-CAM.
        relu: Keep only what is above the mean.

    Returns:
        Maps [batch, height, width], signed so that they agree with the sum of the products; [batch, k, ...]
        for k classes per image.

    References:
        As pytorch-grad-cam's EigenGradCAM.
        Chung, Ying: Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations for Semantic Segmentation Models.
        Applied Sciences 2025, doi 10.3390/app15137562, equations 10 to 12.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> found = jaxai.eigen_grad_cam(net, x, 1, layer="features")
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '0.00 0.00 0.25 0.75'
    """
    return explain(
        _eigen_grad,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        magnitude=bool(magnitude),
    )


def _kernel(kernel: str, gamma, rows: jax.Array) -> jax.Array:
    if kernel == "linear":
        return _linear(rows)
    if (count := rows.shape[-2]) > MOST_POSITIONS:
        raise ValueError(
            f"KPCA-CAM decomposes a matrix of all pairs of positions; `layer` has {count}, expected at most "
            f'{MOST_POSITIONS}: choose a later layer, or `kernel="linear"`'
        )
    gamma = 1 / rows.shape[-1] if gamma is None else gamma
    product = rows @ rows.swapaxes(-1, -2)
    squares = jnp.diagonal(product, axis1=-2, axis2=-1)
    if kernel == "sigmoid":
        product = jnp.tanh(gamma * product + 1)
    elif kernel == "polynomial":
        product = (gamma * product + 1) ** 3
    elif kernel == "rbf":
        distance = squares[..., :, None] + squares[..., None, :] - 2 * product
        product = jnp.exp(-gamma * jnp.maximum(distance, 0))
    elif kernel == "cosine":
        size = jnp.sqrt(jnp.where(squares > 0, squares, 1))
        product = product / (size[..., :, None] * size[..., None, :])
    centred = product - product.mean(-1, keepdims=True)
    return principal_axis(centred - centred.mean(-2, keepdims=True))


# Positions of a layer for KPCA-CAM: the time grows with their third power, 4096 take half a minute an image.
MOST_POSITIONS = 4096
KERNELS = ("sigmoid", "rbf", "polynomial", "cosine", "linear")


def _kpca(view: View, *, kernel: str, gamma) -> jax.Array:
    return view.for_each_target(_first_component(view.acts, partial(_kernel, kernel, gamma)))


@describes(title="KPCA-CAM", result="heatmap", cost=one_forward, signed=unless_relu, explains="nothing")
def kpca_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    kernel: str = "sigmoid",
    gamma: float | None = None,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    batch_size: int | None = None,
) -> Float[Array, "batch *k rows columns"]:
    """Project the activations on their first principal axis in a kernel's feature space.

    Args:
        kernel: `"sigmoid"` tanh(gamma x.y + 1), `"rbf"`, `"polynomial"` (gamma x.y + 1)^3, `"cosine"`,
            `"linear"` (Eigen-CAM), as scikit-learn's KernelPCA defines them.
        gamma: Scale of the kernel; None means one over the number of channels.
        relu: Keep only the positive side.

    Returns:
        Maps [batch, height, width], signed to agree with the sum of the channels; [batch, k, ...] for k
        classes per image.

    Raises:
        ValueError: If the layer has more than 4096 positions and the kernel is not linear.

    References:
        Karmani et al.: KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA. 2024,
        arXiv 2410.00267.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> found = jaxai.kpca_cam(net, x, 1, layer="features")
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '0.00 0.00 0.81 1.05'
    """
    return explain(
        _kpca,
        model,
        images,
        targets,
        layer=layer,
        relu=relu,
        upsample=upsample,
        batch_size=batch_size,
        kernel=checks.choice(kernel, "kernel", KERNELS),
        gamma=None if gamma is None else float(gamma),
    )
