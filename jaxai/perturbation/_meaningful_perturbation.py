"""Meaningful perturbation: the smallest smooth mask whose blurring removes the score."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .. import maps
from .._frame import batching, checks, optimizer
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._frame.targets import Targets
from . import _fills
from ._black_box import needs_gradients


@describes(
    title="meaningful perturbation",
    result="heatmap",
    cost=lambda o: Passes(1 + o.steps * o.targets, backward=o.steps * o.targets),
    unit="how much is hidden",
    explains="probability",
)
def meaningful_perturbation(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: Targets = None,
    *,
    key: jax.Array,
    steps: int = 300,
    grid: int | tuple[int, int] = 28,
    learning_rate: float = 0.1,
    area_weight: float = 1e-4,
    smoothness: float = 1e-2,
    power: float = 3.0,
    jitter: int = 4,
    fill: Any = "blur",
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width"]:
    """Learn which pixels to hide so that the probability of the target vanishes.

    The deletion game of the paper, with its settings: Adam optimises a coarse mask, enlarged bilinearly, to
    minimise area_weight |1 - m|_1 + smoothness sum |grad m|^power + probability of the jittered image seen
    through the mask. The whole descent is one compiled loop over all images of a chunk.

    Args:
        model: Callable pytree, `model(images) -> scores`; differentiated, so no `black_box`.
        key: Randomness of the jitter, shared by the images; a typed key.
        grid: Number of values of the coarse mask down and across.
        learning_rate: Learning rate of Adam.
        area_weight: Weight of the hidden area.
        smoothness: Weight of the mask's total variation.
        power: Exponent of the total variation.
        jitter: Shift the image by up to this many pixels at random at every step.
        fill: Content of hidden pixels: `"blur"`, or as in `jaxai.occlusion`.

    Returns:
        How much each pixel is hidden, 1 - m, [batch, height, width] in [0, 1]; [batch, k, height, width]
        for k classes per image.

    References:
        Fong, Vedaldi: Interpretable Explanations of Black Boxes by Meaningful Perturbation. ICCV 2017,
        arXiv 1704.03296, equation 4.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> model = lambda x: 9 * x[:, :4, :4].mean((1, 2)) - jnp.array([4.0, 0.0])  # the upper left quarter
        >>> hidden = jaxai.meaningful_perturbation(model, jnp.ones((1, 8, 8, 2)) * jnp.array([1.0, 0.0]), 0,
        ...     key=jax.random.key(0), grid=4, steps=50, jitter=0, fill=0.0)
        >>> bool(hidden[0, :3, :3].min() > hidden[0, 5:, 5:].max())
        True
    """
    needs_gradients(model, "meaningful_perturbation")
    model, images, targets = _targets.prepare(model, images, targets, probability=True)
    background = _fills.background(fill, images, None, 0, key=key)
    prices = jnp.asarray([area_weight, smoothness, power, learning_rate], jnp.float32)
    return _search(
        model,
        images,
        background,
        targets,
        checks.key(key),
        prices,
        steps=checks.positive(steps, "steps"),
        grid=checks.pair(grid, "grid"),
        jitter=checks.at_least(jitter, "jitter", 0),
        batch_size=batching.chunk_size(batch_size, model, images),
    )


@partial(jax.jit, static_argnames=("steps", "grid", "jitter", "batch_size"))
def _search(model, images, background, targets, key, prices, *, steps, grid, jitter, batch_size):
    def chunk(x, t, behind):
        t, copies, together = t.frozen(model(x)).each()
        found = _descend(
            model, copies(x), copies(behind), t, key, prices, steps=steps, grid=grid, jitter=jitter
        )
        return together(found)

    return batching.map_images(chunk, images, targets, background, batch_size=batch_size)


def _descend(model, x, behind, targets, key, prices, *, steps, grid, jitter):
    area_weight, smoothness, power, rate = prices
    size = x.shape[1:3]

    def loss(coarse, shift):
        masks = maps.upsample(coarse, size)
        shown = masks[..., None].astype(x.dtype)
        changed = shown * x + (1 - shown) * behind
        if jitter:
            changed = jnp.roll(changed, shift, axis=(1, 2))
        score = targets.probability(model(changed))
        down, across = jnp.abs(jnp.diff(coarse, axis=1)), jnp.abs(jnp.diff(coarse, axis=2))
        rough = (down**power).sum((1, 2)) + (across**power).sum((1, 2))
        return jnp.sum(score + area_weight * jnp.abs(1 - coarse).sum((1, 2)) + smoothness * rough)

    adam = optax.adam(rate)

    def step(state, index):
        coarse, moments = state
        shift = jax.random.randint(jax.random.fold_in(key, index), (2,), -jitter, jitter + 1, jnp.int32)
        change, moments = optimizer.step(adam, jax.grad(loss)(coarse, shift), moments)
        return (jnp.clip(coarse + change, 0, 1), moments), None

    coarse = jnp.full((len(x), *grid), 0.5, jnp.float32)
    (coarse, _), _ = jax.lax.scan(step, (coarse, adam.init(coarse)), jnp.arange(steps))
    return 1 - maps.upsample(coarse, size)
