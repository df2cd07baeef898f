"""Fusion of the maps of several layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import layers, maps
from .._frame import batching, checks
from .._frame import options as _options
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from ._grad_cam import layer_cam

REDUCTIONS = {"max": jnp.max, "mean": jnp.mean, "product": jnp.prod}


SCALES = ("minmax", "tanh", "none")


_ROWS = 7


@describes(title="fused LayerCAM", result="heatmap", cost=lambda o: Passes(heads=o.layers * o.targets))
def fused_cam(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    names: Sequence[str] | None = None,
    method: Callable[..., Any] = layer_cam,
    reduce: str = "max",
    scale: str = "tanh",
    batch_size: int | None = None,
    **options: Any,
) -> Float[Array, "batch *k height width"]:
    """Fuse the maps of several layers, each resized to the image and brought to a common scale.

    All layers share one forward pass. The defaults are those of the LayerCAM paper; pytorch-grad-cam's lists
    of target layers are `method=jaxai.grad_cam, reduce="mean", scale="minmax"`, its RefineCAM
    `reduce="product"`.

    Args:
        names: The layers' names; None takes the last layer of each resolution, without those of fewer than
            seven rows if there are others.
        method: A member of the CAM family (or any method that takes `layer=`).
        reduce: `"mean"`, `"max"` or `"product"` over the layers.
        scale: `"minmax"` maps each layer's map to [0, 1]; `"tanh"` is tanh(2 map / maximum); `"none"`.
        **options: Passed to `method`, such as `key=`.

    References:
        Jiang et al.: LayerCAM. IEEE TIP 2021, doi 10.1109/TIP.2021.3089943, equation 8.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> stages = {"one": lambda x: x, "two": lambda x: 2 * x, "logits": lambda x: x.mean((1, 2))}
        >>> net = jaxai.chain(stages)
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> found = jaxai.fused_cam(net, x, 1, names=("one", "two"), scale="minmax")
        >>> " ".join(f"{value:.2f}" for value in found.ravel())
        '0.00 0.33 0.67 1.00'
    """
    model, images, targets = _targets.prepare(model, images, targets)
    if names is None:
        names = _stages(model, images)
    if isinstance(names, str) or not names:
        raise ValueError(f"`names` must be a sequence of layers' names; got {names!r}")
    static, arrays = _options.split(options)
    return _fused(
        model,
        images,
        targets,
        arrays,
        names=tuple(layers.resolve(model, name, images) for name in names),
        method=_targets.as_model(method),
        static=static,
        reduce=checks.choice(reduce, "reduce", tuple(REDUCTIONS)),
        scale=checks.choice(scale, "scale", SCALES),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("names", "static", "reduce", "scale", "batch_size"))
def _fused(model, images, targets, arrays, *, names, method, static, reduce, scale, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        # The compiler merges the layers' equal forward passes.
        found = [
            scaled(
                maps.upsample(method(model, x, t.plain, layer=name, **dict(static), **arrays), x.shape[1:3]),
                scale,
            )
            for name in names
        ]
        return REDUCTIONS[reduce](jnp.stack(found), axis=0)

    return batching.map_images(chunk, images, targets, batch_size=batch_size)


def _stages(model: Any, images: jax.Array) -> list[str]:
    """Return the last layer of each resolution; those of fewer than seven rows only if there is no other."""
    last: dict[int, str] = {}
    for name, (rows, columns) in reversed(layers.grids(model, images).items()):
        if rows * columns > 1 and rows not in last and layers.reaches(model, name, images):
            last[rows] = name
    return [name for rows, name in reversed(last.items()) if rows >= _ROWS] or list(last.values())[::-1]


def scaled(cam: jax.Array, scale: str) -> jax.Array:
    """Bring maps to a common scale."""
    if scale == "minmax":
        return maps.normalize(cam)
    if scale == "tanh":
        top = cam.max((-2, -1), keepdims=True)
        return jnp.tanh(2 * cam / jnp.where(top > 0, top, 1))
    return cam
