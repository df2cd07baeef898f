"""Extremal perturbation: the smooth mask of a given area that preserves (or removes) most of the score."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._frame import batching, checks, optimizer
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _fills
from ._black_box import needs_gradients

VARIANTS = ("preserve", "delete", "dual")
# The authors' settings: blur in pixels, coldness of the smooth maximum, growth of the area's weight over all
# steps, and the momentum, which is damped: the velocity is a mean of gradients, not a sum.
_BLUR, _COLDNESS, _GROWTH, _MOMENTUM = 20.0, 20.0, 16.0, 0.9
# Values of a mask that differ by less count as equal.
_SAME = 0.01
# Fractions of their multiples fill the unit square evenly (Roberts' sequence): shifts without a key.
_SPREAD = (0.7548776662, 0.5698402910)


def _views(variant):
    """Return the number of images that the network sees per step."""
    return 2 if variant == "dual" else 1


@describes(
    title="extremal perturbation",
    result="heatmap",
    cost=lambda o: Passes(
        1 + (2 + _views(o.variant) * o.steps) * o.targets, backward=_views(o.variant) * o.steps * o.targets
    ),
    unit="mask",
)
def extremal_perturbation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    area: float = 0.1,
    variant: str = "dual",
    steps: int = 300,
    stride: int = 7,
    sigma: float = 21.0,
    learning_rate: float = 0.67,
    area_weight: float = 12.0,
    fill: Any = "blur",
    flip: bool = True,
    jitter: int = 16,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Find the mask of a fixed area that maximises the logit while everything else is blurred.

    The mask is the smooth maximum of bumps on a coarse grid, so it cannot turn into adversarial noise; its
    sorted values are pulled towards a step function that is 1 on the given fraction of the image. The score
    is measured in units of the difference between the image and its blurred version, so that the mask does
    not depend on the scale of logits or other values. The whole descent is one compiled loop over all images
    of a chunk.

    The defaults differ from the authors', which suit VGG16 and ResNet-50, in three ways. `variant="dual"`: a
    network may still recognise a large blurred object if its surroundings are sharp; hiding the mask as well
    separates the object from them. A mask value mixes the image with one blur instead of choosing among
    eight, because the gradient of a small change of blur carries little information about what is hidden.
    `jitter` shifts the image, so that specks of texture at a particular place have no effect.

    Args:
        model: Callable pytree, `model(images) -> scores`; differentiated, so no `black_box`.
        area: Fraction of the image that the mask covers, in (0, 1).
        variant: `"preserve"` shows what is under the mask, `"delete"` hides it, `"dual"` optimises both at
            once.
        stride: Pixels between the grid's bumps.
        sigma: Radius of a bump in pixels.
        learning_rate: Learning rate of gradient descent with momentum 0.9.
        area_weight: Initial weight of the area relative to a score of 1; it grows 16-fold.
        fill: Content of hidden pixels: `"blur"`, the image after a Gaussian blur of 20 pixels, or as in
            `jaxai.occlusion`.
        flip: Mirror the image at every other step, so that the mask does not overfit.
        jitter: Shift the image by up to this many pixels, differently at each step, for the same reason.

    Returns:
        Masks [batch, height, width] in [0, 1]; [batch, k, height, width] for k classes per image.

    References:
        Fong, Patrick, Vedaldi: Understanding Deep Networks via Extremal Perturbations and Smooth Masks.
        ICCV 2019, arXiv 1910.08485, equations 3 to 7.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: 9 * x[:, :8, :8].mean((1, 2))  # looks at the upper left quarter
        >>> mask = jaxai.extremal_perturbation(model, jnp.ones((1, 16, 16, 1)), 0, area=0.25, steps=100,
        ...     stride=2, sigma=3.0, fill=0.0, flip=False, jitter=0)
        >>> bool(mask[0, :8, :8].mean() > 0.7 > 0.3 > mask[0, 8:, 8:].mean())
        True
    """
    needs_gradients(model, "extremal_perturbation")
    checks.choice(variant, "variant", VARIANTS)
    if not 0 < area < 1:
        raise ValueError(f"`area` must lie between 0 and 1; got {area!r}")
    if not sigma > 0:
        raise ValueError(f"`sigma` must be positive; got {sigma!r}")
    model, images, targets = _targets.prepare(model, images, targets)
    if isinstance(fill, str) and fill == "blur":
        hidden = _fills.blur(images, _BLUR)
    else:
        hidden = _fills.background(fill, images, None, 0)
    return _search(
        model,
        images,
        hidden,
        targets,
        np.asarray([learning_rate, area_weight], np.float32),
        area=float(area),
        variant=variant,
        steps=checks.positive(steps, "steps"),
        stride=checks.positive(stride, "stride"),
        sigma=float(sigma),
        flip=bool(flip),
        jitter=checks.at_least(jitter, "jitter", 0),
        batch_size=batching.chunk_size(batch_size, model, images),
    )


_STATIC = ("area", "variant", "steps", "stride", "sigma", "flip", "jitter", "batch_size")


@partial(jax.jit, static_argnames=_STATIC)
def _search(model, images, hidden, targets, settings, *, batch_size, **options):
    def chunk(x, t, behind):
        t, copies, together = t.frozen(model(x)).each()
        return together(_descend(model, copies(x), copies(behind), t, settings, **options))

    return batching.map_images(chunk, images, targets, hidden, batch_size=batch_size)


def _descend(model, x, hidden, targets, settings, *, area, variant, steps, stride, sigma, flip, jitter):
    size = x.shape[1:3]
    sgd = optax.sgd(settings[0] * (1 - _MOMENTUM), momentum=_MOMENTUM)
    ends = [targets.of(model(image)).astype(jnp.float32) for image in (x, hidden)]
    # The unit is at least a thousandth of the score; equal scores of all masks have no gradient.
    unit = jnp.maximum(jnp.abs(ends[0] - ends[1]), jnp.maximum(1e-3 * jnp.abs(ends[0]), 1e-6))

    def loss(bumps, weight, mirror, shift):
        whole = smooth_maximum(bumps, stride, sigma)
        masks = _crop(whole, size)[..., None].astype(x.dtype)
        preserved, deleted = masks * x + (1 - masks) * hidden, (1 - masks) * x + masks * hidden
        shown = {"preserve": [preserved], "delete": [deleted], "dual": [preserved, deleted]}[variant]
        seen = jnp.concatenate(shown)
        if flip:
            seen = jnp.where(mirror, seen[:, :, ::-1], seen)
        if jitter:
            seen = jnp.roll(seen, shift, axis=(1, 2))
        values = targets.tile(len(shown)).of(model(seen)).reshape(len(shown), -1)
        reward = {"preserve": values[0], "delete": -values[0], "dual": values[0] - values[-1]}[variant]
        # Equation 5: the sorted mask is compared with a step function.
        penalty = jnp.square(whole - jax.lax.stop_gradient(sharpened(whole, area))).mean((1, 2))
        return jnp.sum(weight * penalty - reward / unit)

    def step(state, index):
        bumps, momentum = state
        number = index.astype(jnp.float32)
        weight = settings[1] * _GROWTH ** (number / steps)
        place = jnp.mod(number * jnp.asarray(_SPREAD, jnp.float32), 1)
        shift = jnp.int32(jnp.round((2 * place - 1) * jitter))
        gradient = jax.grad(loss)(bumps, weight, index % 2 == 0, shift)
        change, momentum = optimizer.step(sgd, gradient, momentum)
        return (jnp.clip(bumps + change, 0, 1), momentum), None

    bumps = jnp.ones((x.shape[0], *(math.ceil(side / stride) for side in size)), jnp.float32)
    bumps = jax.lax.scan(step, (bumps, sgd.init(bumps)), jnp.arange(steps))[0][0]
    return _crop(smooth_maximum(bumps, stride, sigma), size)


def _crop(masks, size):
    """Return the middle of masks that cover whole cells."""
    top, left = (masks.shape[1] - size[0]) // 2, (masks.shape[2] - size[1]) // 2
    return masks[:, top : top + size[0], left : left + size[1]]


def sharpened(masks: Float[Array, "batch height width"], area: float) -> Float[Array, "batch height width"]:
    """Return masks of the given area, 1 where the values are largest and 0 elsewhere.

    Pixels within 0.01 of the threshold share the rest of the area. A sort would order them by their position
    in the image.

    Args:
        masks: Values in [0, 1].
        area: Fraction of the pixels that are 1.
    """
    flat = masks.reshape(masks.shape[0], -1)
    # At least one pixel is shown.
    hidden = jnp.clip(jnp.int32(flat.shape[1] * (1 - jnp.float32(area))), 0, flat.shape[1] - 1)
    threshold = jnp.take(jnp.sort(flat, axis=1), hidden, axis=1)[:, None]
    above = flat > threshold + _SAME
    tied = (flat >= threshold - _SAME) & ~above
    left = flat.shape[1] - hidden - above.sum(1, keepdims=True, dtype=jnp.int32)
    share = left.astype(jnp.float32) / tied.sum(1, keepdims=True, dtype=jnp.float32)
    return jnp.where(above, 1.0, jnp.where(tied, share, 0.0)).reshape(masks.shape)


def smooth_maximum(
    bumps: Float[Array, "batch rows columns"], stride: int, sigma: float
) -> Float[Array, "batch height width"]:
    """Return masks whose value at a pixel is the smooth maximum of the bumps around it.

    A bump of height m is m up to half its radius and falls like a Gaussian; the smooth maximum is the mean
    weighted by softmax(20 x), divided by its value for bumps of height 1. Each cell of the grid has a bump in
    its middle, and the grid is mirrored at its edges, so that there are no edge effects: equal bumps make a
    flat mask, to which each contributes equally.

    Args:
        bumps: Heights on the grid, in [0, 1].
        stride: Height and width of a cell in pixels.
        sigma: Radius of a bump in pixels.

    Returns:
        Masks of `stride` times the size of the grid, in [0, 1].
    """
    rows, columns = bumps.shape[1:]
    radius = 1 + math.ceil(sigma / stride)
    reach = np.arange(-radius, radius + 1)
    # From the pixels of a cell to the bumps of the surrounding cells, [stride^2, reach^2].
    away = np.abs((np.arange(stride) - (stride - 1) / 2)[:, None] - stride * reach)
    distance = np.hypot(away[:, None, :, None], away[None, :, None, :]).reshape(stride**2, -1)
    kernel = jnp.asarray(np.exp(-2 * np.maximum(distance / sigma - 0.5, 0) ** 2), jnp.float32)
    around = jnp.pad(bumps, ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    y, x = (np.arange(count)[:, None] + reach + radius for count in (rows, columns))
    near = around[:, y[:, None, :, None], x[None, :, None, :]].reshape(*bumps.shape, 1, -1)
    cells = (_soft(near * kernel[None, None, None]) / _soft(kernel)[None, None, None]).reshape(
        *bumps.shape, stride, stride
    )
    masks = jnp.moveaxis(cells, 3, 2).reshape(bumps.shape[0], rows * stride, columns * stride)
    # The value is clipped at 1, the gradient is not, since it would depend on rounding near 1.
    return masks + jax.lax.stop_gradient(jnp.minimum(masks, 1) - masks)


def _soft(values):
    """Return the smooth maximum of values in [0, 1] over the last axis."""
    weights = jnp.exp(_COLDNESS * values)
    return (values * weights).sum(-1) / weights.sum(-1)
