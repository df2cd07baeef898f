"""Occlusion: the drop of the score when a window of the image is covered."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._frame import batching
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _fills, _scoring, _windows
from . import _incremental as patches
from ._black_box import BlackBox

# Below this saving, cutting and pasting cost more than they save.
_WORTHWHILE = 1.5


def _cost(options: Any) -> Passes:
    return Passes(
        1 + _windows.sliding((options.height, options.width), options.window, options.strides).total
    )


@describes(title="occlusion", result="heatmap", cost=_cost, unit="drop of the score", signed=True)
def occlusion(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: Targets = None,
    *,
    window: int | tuple[int, ...] = (32, 32),
    strides: int | tuple[int, ...] = (16, 16),
    fill: Any = 0.0,
    key: jax.Array | None = None,
    incremental: bool | None = None,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"] | Float[Array, "batch ..."]:
    """Cover a sliding window and map the drop of the score, score(image) - score(covered image).

    A pixel gets the mean drop of the windows that cover it. Windows start at the upper left corner; the last
    of a row or column is cut off at the border if the strides do not fit. The values equal those of Captum's
    Occlusion.

    Args:
        targets: What to explain (see `jaxai.targets`); drops of logits are mapped. None is the top class of
            the image itself.
        window: Rows and columns of the window; for signals a number, for volumes (depth, rows, columns).
        strides: Distance between neighbouring windows.
        incremental: Recompute only the part of each layer that a window affects (exact up to float rounding);
            works for any model that JAX can trace whose first layers are convolutions, pools and elementwise
            operations. All activations of one image are then held in memory. None does so if it saves at
            least a third of the multiplications.

    Returns:
        Drops [batch, height, width]; [batch, k, height, width] for k classes per image. 0 where there is no
        window.

    Raises:
        ValueError: If a window exceeds the image.

    References:
        Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv 1311.2901,
        section 4.2.
        Nakandala, Kumar, Papakonstantinou: Incremental and Approximate Inference for Faster Occlusion-based
        Deep CNN Explanations. SIGMOD 2019, section 3 (the incremental form).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> image = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
        >>> jaxai.occlusion(lambda x: x.sum((1, 2)), image, 0, window=(1, 2), strides=(1, 2)).tolist()
        [[[3.0, 3.0, 7.0, 7.0]]]
    """
    model, images, targets = _scoring.prepare(model, images, targets, plane=False)
    place = _windows.sliding(images.shape[1:-1], window, strides)
    background = _fills.background(fill, images, None, 0, key=key)
    chunk = _scoring.in_flight(model, images, batch_size, images.shape[0] * (place.total + 1))
    if _is_incremental(incremental, model, images, targets, place):
        values = _incremental(model, images, background, targets, place=place, batch_size=chunk)
        _scoring.check_finite(values)
        return _drops(values, place=place)
    targets = _scoring.frozen(model, images, targets, chunk)
    # The uncovered image is treated as one more window, so that the model is compiled once.
    values = _scoring.scores(
        model,
        _scoring.Perturbation(_covered, (place,), (images, background)),
        targets,
        count=images.shape[0] * (place.total + 1),
        batch_size=chunk,
        probability=False,
    )
    values = values.reshape(images.shape[0], place.total + 1, *values.shape[1:])
    _scoring.check_finite(values)
    return _drops(values, place=place)


def _is_incremental(wanted, model, images, targets, place):
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"`incremental` must be True, False or None; got {wanted!r}")
    if isinstance(model, BlackBox):
        if wanted:
            raise TypeError("`incremental` needs a model that JAX can trace; got a black box")
        return False
    if images.ndim != 4:
        if wanted:
            raise ValueError("`incremental` needs images [batch, height, width, channels]")
        return False
    if wanted is not None:
        return wanted
    # A slice keeps the sharding of the images, of which only shape and type are read.
    one = images[:1]
    one_output, _ = _targets.join(model, one, targets)
    return patches.saving(patches.program(one_output, one, place)[0]) >= _WORTHWHILE


@partial(jax.jit, static_argnames=("place", "batch_size"))
def _incremental(model, images, background, targets, *, place, batch_size):
    """Return the values of the image and of all windows, [batch, 1 + windows, *k], image by image."""

    def one(arguments):
        x, behind, classes = arguments
        target = targets.of_classes(None if classes is None else classes[None])
        one_output, target = _targets.join(model, x[None], target)
        plan, flat = patches.program(one_output, x[None], place)
        env = patches.originals(plan, flat)
        whole = one_output(x[None])
        target = target.frozen(whole)

        def some(numbers):
            outputs = patches.scores(plan, env, behind[None], place, numbers)
            return target.repeat(len(numbers)).of(outputs)

        size = batch_size * patches.lightness(plan)
        covered = batching.map_chunks(some, jnp.arange(place.total), batch_size=size)
        return jnp.concatenate([target.of(whole), covered])

    return jax.lax.map(one, (images, background, targets.classes))


def _covered(place: _windows.Windows, images: jax.Array, background: jax.Array, indices: jax.Array):
    """Make the covered images of flat indices of (image, window) pairs; window 0 covers nothing."""
    owners, numbers = indices // (place.total + 1), indices % (place.total + 1)
    inside = place.cover(jnp.maximum(numbers - 1, 0)) & jnp.expand_dims(
        numbers > 0, range(1, images.ndim - 1)
    )
    if images.shape[0] > 1:
        images, background = images[owners], background[owners]
    return jnp.where(inside[..., None], background, images), owners


@partial(jax.jit, static_argnames="place")
def _drops(values, *, place):
    return place.average(values[:, :1] - values[:, 1:])
