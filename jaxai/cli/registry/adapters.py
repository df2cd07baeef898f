"""Methods that need more than a photo, with what the command line gives them: baselines, layers, a sum."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ... import cam, gradients, maps, rules


def plain_colours(images: jax.Array, normalize: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return eight photos of one colour each, the corners of the colour cube, as the model takes them."""
    corners = jnp.array(list(itertools.product((0.0, 1.0), repeat=images.shape[-1])))
    photos = jnp.broadcast_to(corners[:, None, None, :], (len(corners), *images.shape[1:]))
    return normalize(photos).astype(images.dtype)


def deep_lift_shap(model, images, targets, *, normalize, strict: bool = False, batch_size: int | None = None):
    """Run DeepLIFT-SHAP against plain colours."""
    baselines = plain_colours(images, normalize)
    return rules.deep_lift_shap(
        model, images, targets, baselines=baselines, strict=strict, batch_size=batch_size
    )


def expected_gradients(
    model, images, targets, *, key, normalize, num_samples: int = 200, batch_size: int | None = None
):
    """Run expected gradients with plain colours for references."""
    references = plain_colours(images, normalize)
    return gradients.expected_gradients(
        model, images, targets, references=references, key=key, num_samples=num_samples, batch_size=batch_size
    )


def gradient_shap(
    model,
    images,
    targets,
    *,
    key,
    normalize,
    num_samples: int = 50,
    noise: float = 0.1,
    batch_size: int | None = None,
):
    """Run GradientSHAP with plain colours for references."""
    return gradients.gradient_shap(
        model,
        images,
        targets,
        references=plain_colours(images, normalize),
        key=key,
        num_samples=num_samples,
        noise=noise,
        batch_size=batch_size,
    )


def _summed(values: jax.Array, images: jax.Array) -> jax.Array:
    """Sum attributions of a layer over its features and bring them to the photo's size."""
    return maps.upsample(values.sum(-1), images.shape[1:3])


def layer_gradients(
    model,
    images,
    targets,
    *,
    layer: str | None = None,
    times_activation: bool = True,
    batch_size: int | None = None,
):
    """Run the layer's gradient, times the activation unless told otherwise, as one map."""
    found = gradients.layer_gradients(
        model, images, targets, layer=layer, times_activation=times_activation, batch_size=batch_size
    )
    return _summed(found, images)


def layer_integrated_gradients(
    model, images, targets, *, layer: str | None = None, steps: int = 50, batch_size: int | None = None
):
    """Run the layer's integrated gradients as one map."""
    found = gradients.layer_integrated_gradients(
        model, images, targets, layer=layer, steps=steps, batch_size=batch_size
    )
    return _summed(found, images)


def internal_influence(
    model, images, targets, *, layer: str | None = None, steps: int = 50, batch_size: int | None = None
):
    """Run the layer's internal influence as one map."""
    found = gradients.internal_influence(
        model, images, targets, layer=layer, steps=steps, batch_size=batch_size
    )
    return _summed(found, images)


def conductance(
    model, images, targets, *, layer: str | None = None, steps: int = 50, batch_size: int | None = None
):
    """Run the layer's conductance as one map."""
    found = gradients.conductance(model, images, targets, layer=layer, steps=steps, batch_size=batch_size)
    return _summed(found, images)


def forgrad(model, images, targets, *, cutoff: float = 15.0, batch_size: int | None = None):
    """Run saliency, filtered as Xplique does: the magnitude of the mean over the channels."""
    found = gradients.saliency(model, images, targets, batch_size=batch_size)
    return jnp.abs(gradients.forgrad(jnp.abs(found.mean(-1)), cutoff=cutoff))


def stages(model: Any, images: jax.Array) -> list[str]:
    """Return the last layer of each resolution, those of fewer than seven rows left out."""
    last: dict[int, str] = {}
    for name in model.layer_names:
        shape = jax.eval_shape(lambda m, x, name=name: m(x, stop=name), model, images).shape
        if len(shape) == 4 and shape[1] >= min(7, images.shape[1]):
            last[shape[1]] = name
    return list(last.values())


def fused_cam(
    model,
    images,
    targets,
    *,
    names: Sequence[str] | None = None,
    reduce: str = "max",
    scale: str = "tanh",
    batch_size: int | None = None,
):
    """Fuse LayerCAM over a network's resolutions, as its paper does."""
    return cam.fused_cam(
        model,
        images,
        targets,
        names=names or stages(model, images),
        method=cam.layer_cam,
        reduce=reduce,
        scale=scale,
        batch_size=batch_size,
    )
