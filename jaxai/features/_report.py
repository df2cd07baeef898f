"""Quality measures of synthetic images: activation, robustness, naturalness, transfer, stability."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.results import brief
from . import parametrize
from ._factors import layer_activations
from ._measure import measure, percentile
from ._visualize import listed, single, visualize
from .objectives import Objective
from .transforms import Transforms, apply, draw

# Transforms that `visualize` does not use by default: flips, blur, colours, shifts of a tenth.
HELD_OUT = Transforms(jitter=(0.1, 0.0), flip=True, blur=1.0, brightness=0.1, contrast=0.2, saturation=0.3)


class Report(NamedTuple):
    """Measures of N images; `as_rows` makes a table of them."""

    activation: Float[Array, " runs"]
    """The objective's value for the image as it is."""
    percentile: Float[Array, " runs"]
    """Percentage of the real photos with a smaller value; NaN without photos."""
    held_out: Float[Array, " runs"]
    """Mean value under transforms that the optimisation did not use, over `activation`."""
    slope: Float[Array, " runs"]
    """Slope of the amplitude spectrum in logarithms; about -1 for natural images, 0 for noise."""
    variation: Float[Array, " runs"]
    """Mean absolute difference of neighbouring pixels."""
    clipped: Float[Array, " runs"]
    """Part of the values within 1/50 of black or white."""
    saturation: Float[Array, " runs"]
    """Mean over pixels of the largest minus the smallest channel."""
    transfer: Float[Array, "runs networks"]
    """Probability of the class in other networks."""

    def as_rows(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Return one dictionary of numbers for each image."""
        rows = []
        for i, label in enumerate(labels):
            row: dict[str, Any] = {"image": label}
            for name, values in self._asdict().items():
                value = np.asarray(values[i])
                row[name] = [float(v) for v in value] if value.ndim else float(value)
            rows.append(row)
        return rows

    __repr__ = brief


@completed
def report(
    model: Callable[..., Any],
    images: Float[Array, "runs height width channels"],
    objective: str | Objective | Sequence[Any],
    *,
    key: jax.Array,
    photos: Float[Array, "batch height width channels"] | None = None,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    others: Mapping[str, tuple[Any, Callable[[jax.Array], jax.Array], int]] | None = None,
    classes: Sequence[int] | None = None,
    num_views: int = 8,
    batch_size: int | None = None,
) -> Report:
    """Measure synthetic images.

    Args:
        images: Float in [0, 1].
        objective: The objective of each image, or one for all.
        key: Typed key of the held-out transforms.
        photos: Real photos to compare activations with.
        others: Other networks as name: (model, normalize, input size), for `transfer`.
        classes: The class of each image, in the other networks.
        num_views: Transformed views of each image.

    Returns:
        A `Report`.

    Raises:
        ValueError: If numbers of images, objectives and classes differ.

    References:
        Field: Relations between the Statistics of Natural Images and the Response Properties of Cortical
        Cells. JOSA A 1987 (the spectral slope).
    """
    checks.key(key)
    images = checks.images(images)
    count = images.shape[0]
    wanted = listed(objective) * (count if single(objective) else 1)
    if len(wanted) != count or (others and len(classes or ()) != count):
        raise ValueError(
            f"there must be one objective (and class, for `others`) for each of {count} images;"
            f" got {len(wanted)} objectives and {len(classes or ())} classes"
        )
    each = partial(measure, model, normalize=normalize, batch_size=batch_size)
    own = jnp.diagonal(each(wanted, images))
    if photos is None:
        ranks = jnp.full(count, jnp.nan, jnp.float32)
    else:
        ranks = percentile(own, each(wanted, photos))
    moved = held_out_views(images, key=key, views=num_views)
    flat = each(wanted, moved.reshape(-1, *images.shape[1:]))
    seen = flat.reshape(count, count, num_views)[jnp.arange(count), jnp.arange(count)].mean(1)
    chances = (
        jnp.stack(
            [
                _probability(m, f(resized(images, s)), jnp.asarray(classes))
                for m, f, s in (others or {}).values()
            ],
            axis=1,
        )
        if others
        else jnp.zeros((count, 0), jnp.float32)
    )
    return Report(
        activation=own,
        percentile=ranks,
        held_out=seen / jnp.where(own != 0, own, 1),
        slope=spectral_slope(images),
        variation=variation(images),
        clipped=((images < 0.02) | (images > 0.98)).mean((1, 2, 3)),
        saturation=(images.max(-1) - images.min(-1)).mean((1, 2)),
        transfer=chances,
    )


@jax.jit
def _probability(model, x, classes):
    scores = jax.nn.softmax(model(x).astype(jnp.float32), axis=-1)
    return jnp.take_along_axis(scores, classes[:, None], axis=1)[:, 0]


def resized(images: jax.Array, size: int) -> jax.Array:
    """Return images resized to a square of `size`, linear and antialiased."""
    return jax.image.resize(images, (images.shape[0], size, size, images.shape[3]), "linear")


def held_out_views(
    images: Float[Array, "runs height width channels"], *, key: jax.Array, views: int
) -> Float[Array, "runs views height width channels"]:
    """Return transformed views of each image, by transforms that `visualize` does not use by default."""
    count = images.shape[0]
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count * checks.positive(views, "views")))
    draws = jax.vmap(lambda k: draw(HELD_OUT, k, (images.shape[1], images.shape[2])))(keys)
    moved = apply(HELD_OUT, draws, jnp.repeat(images, views, axis=0))
    return jnp.clip(moved, 0, 1).reshape(count, views, *images.shape[1:])


def spectral_slope(images: Float[Array, "runs height width channels"]) -> Float[Array, " runs"]:
    """Return the slope of log amplitude over log frequency of the brightness, all frequencies alike."""
    grey = np.asarray(images).mean(-1)
    grey = grey - grey.mean((1, 2), keepdims=True)
    f = parametrize.frequencies(*grey.shape[1:])
    inside = (f > 0) & (f <= 0.5)
    x = np.log(f[inside])
    x = (x - x.mean()) / np.square(x - x.mean()).sum()
    amplitude = np.abs(np.fft.rfft2(grey))[:, inside]
    return jnp.asarray(np.log(amplitude + 1e-9) @ x, jnp.float32)


def variation(images: Float[Array, "runs height width channels"]) -> Float[Array, " runs"]:
    """Return the mean absolute difference of neighbouring pixels, over rows and columns."""
    rows = jnp.abs(jnp.diff(images, axis=1)).mean((1, 2, 3))
    columns = jnp.abs(jnp.diff(images, axis=2)).mean((1, 2, 3))
    return (rows + columns) / 2


class Stability(NamedTuple):
    """Similarity of the images from different seeds."""

    likeness: Float[Array, " runs"]
    """Mean cosine between the layer's mean activations of two seeds."""
    spread: Float[Array, " runs"]
    """Standard deviation over seeds of the activation reached, over its mean."""

    __repr__ = brief


@completed
def seed_stability(
    model: Callable[..., Any],
    objective: str | Objective | Sequence[Any],
    *,
    layer: str,
    key: jax.Array,
    num_seeds: int = 3,
    normalize: Callable[[jax.Array], jax.Array] | None = None,
    **options: Any,
) -> Stability:
    """Run objectives from several seeds and compare the results.

    Args:
        layer: The layer in whose activations, averaged over positions, images are compared.
        key: Typed key; the seeds are further runs of it.
        num_seeds: How many, at least two.

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    if checks.positive(num_seeds, "num_seeds") < 2:
        raise ValueError(f"`num_seeds` must be at least 2; got {num_seeds}")
    wanted = listed(objective)
    found = visualize(model, wanted * num_seeds, key=key, normalize=normalize, **options)
    count = len(wanted)
    reached = jnp.diagonal(measure(model, wanted * num_seeds, found.images, normalize=normalize)).reshape(
        num_seeds, count
    )
    acts = layer_activations(model, found.images, layer=layer, normalize=normalize)
    acts = acts.reshape(num_seeds, count, -1, acts.shape[-1]).mean(2)
    acts = acts / jnp.maximum(jnp.linalg.norm(acts, axis=-1, keepdims=True), 1e-9)
    cosines = jnp.einsum("snc,tnc->nst", acts, acts)
    likeness = (cosines.sum((1, 2)) - num_seeds) / (num_seeds * (num_seeds - 1))
    spread = reached.std(0) / jnp.maximum(jnp.abs(reached.mean(0)), 1e-9)
    return Stability(likeness, spread)
