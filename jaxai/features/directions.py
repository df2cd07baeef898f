"""Objectives along directions of a layer's activations, and towards the activations of other images."""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from .objectives import Objective, Term, at_channel, at_position

# Lucid's guard against a division by zero, and the least cosine that counts.
_EPSILON = 1e-4
_FLOOR = 0.1


def _dot_cosine(acts, vector, power):
    """Return acts . vector times max(0.1, cosine)^power, averaged over positions; [copies]."""
    dot = acts @ vector
    if power:
        lengths = (_EPSILON + _length(acts)) * (_EPSILON + _length(vector))
        dot = dot * jnp.maximum(_FLOOR, dot / lengths) ** power
    return dot.reshape(dot.shape[0], -1).mean(1)


def _length(x):
    """Return the Euclidean length along the last axis, with gradient zero at zero."""
    square = jnp.square(x).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _direction(acts, vector, power):
    return _dot_cosine(acts, vector, power)


def _direction_neuron(acts, vector, position, power):
    return _dot_cosine(at_position(acts, position), vector, power)


def _cosine(acts, vector):
    cosine = acts @ vector / (_EPSILON + _length(acts) * _length(vector))
    return cosine.reshape(cosine.shape[0], -1).mean(1)


def direction(layer: str, vector: ArrayLike, *, cosine_power: float = 0.0) -> Objective:
    """Return the mean over positions of activation . vector, times max(0.1, cosine)^cosine_power.

    Args:
        layer: A layer's name.
        vector: float[channels].
        cosine_power: 0 is the plain dot product; higher values favour images of only this direction.
    """
    return Term(
        {"vector": jnp.asarray(vector, jnp.float32)}, layer, _direction, (("power", float(cosine_power)),)
    )


def direction_neuron(
    layer: str,
    vector: ArrayLike,
    position: tuple[int, int] | None = None,
    *,
    cosine_power: float = 0.0,
) -> Objective:
    """Return `direction` at one position (row, column); None means the centre, size // 2."""
    data = {
        "vector": jnp.asarray(vector, jnp.float32),
        "position": jnp.asarray((-1, -1) if position is None else position, jnp.int32),
    }
    return Term(data, layer, _direction_neuron, (("power", float(cosine_power)),))


def cosine_direction(layer: str, vector: ArrayLike) -> Objective:
    """Return the mean cosine between the activations at each position and a direction float[channels]."""
    return Term({"vector": jnp.asarray(vector, jnp.float32)}, layer, _cosine)


def _spread(tensor, acts):
    return jnp.broadcast_to(tensor, acts.shape[1:])[None]


def _tensor_direction(acts, tensor, power):
    dot = (acts * _spread(tensor, acts)).reshape(acts.shape[0], -1).sum(1)
    if power:
        lengths = _EPSILON + _length(tensor.reshape(-1)) * _length(acts.reshape(acts.shape[0], -1))
        dot = dot * jnp.maximum(_FLOOR, dot / lengths) ** power
    return dot


def tensor_direction(layer: str, tensor: ArrayLike, *, cosine_power: float = 0.0) -> Objective:
    """Return the dot product of a whole layer with a target of its shape: caricature and feature inversion.

    Args:
        layer: A layer's name.
        tensor: float[h, w, channels] (or [channels]), for example the activations of a photo.
        cosine_power: Exponent of max(0.1, cosine), as in `direction`.
    """
    tensor = jnp.asarray(tensor, jnp.float32)
    return Term({"tensor": tensor}, layer, _tensor_direction, (("power", float(cosine_power)),))


def _difference(acts, tensor, kind):
    gap = (acts - _spread(tensor, acts)).reshape(acts.shape[0], -1)
    return jnp.abs(gap).mean(1) if kind == "l1" else jnp.square(gap).mean(1)


def activation_difference(layer: str, tensor: ArrayLike, *, kind: str = "l1") -> Objective:
    """Return the mean distance of a layer from a target of its shape; subtract it to minimise the distance.

    Args:
        layer: A layer's name.
        tensor: float[h, w, channels] (or [channels]).
        kind: `"l1"`, mean absolute difference, or `"l2"`, mean squared difference.
    """
    if kind not in ("l1", "l2"):
        raise ValueError(f"`kind` must be one of l1, l2; got {kind!r}")
    return Term({"tensor": jnp.asarray(tensor, jnp.float32)}, layer, _difference, (("kind", kind),))


def _interpolate(acts, channel, channel2):
    share = (
        jnp.linspace(0.0, 1.0, acts.shape[0], dtype=jnp.float32)
        if acts.shape[0] > 1
        else jnp.full(1, 0.5, jnp.float32)
    )
    first, second = (at_channel(acts, c).reshape(acts.shape[0], -1).mean(1) for c in (channel, channel2))
    return (1 - share) * first + share * second


def channel_interpolation(layer: str, channel: int, other: int) -> Objective:
    """Return a blend of two channels that goes from the first to the second along the copies of a run."""
    data = {"channel": jnp.asarray(channel, jnp.int32), "channel2": jnp.asarray(other, jnp.int32)}
    return Term(data, layer, _interpolate)


def _alignment(acts, decay):
    total = jnp.zeros(acts.shape[0], jnp.float32)
    for distance in range(1, min(4, acts.shape[0] - 1) + 1):
        gap = jnp.square(acts[distance:] - acts[:-distance])
        gap = gap.reshape(gap.shape[0], -1).mean(1) / decay**distance
        # Each pair's cost falls to both of its images in halves; the sum is Lucid's.
        total = total.at[distance:].add(-gap / 2).at[:-distance].add(-gap / 2)
    return total


def alignment(layer: str, *, decay: float = 2.0) -> Objective:
    """Return minus the squared distance between neighbouring copies of a run, up to four apart.

    Args:
        layer: A layer's name, or `"input"` for the images themselves.
        decay: A pair at distance d has the weight 1 / decay^d.
    """
    return Term({}, layer, _alignment, (("decay", float(decay)),))


def _diversity(acts):
    copies, channels = acts.shape[0], acts.shape[-1]
    flat = acts.reshape(copies, -1, channels)
    grams = jnp.einsum("npc,npd->ncd", flat, flat).reshape(copies, -1)
    grams = grams * jax.lax.rsqrt(jnp.maximum(jnp.square(grams).sum(1, keepdims=True), 1e-10))
    likeness = grams @ grams.T
    return -(likeness.sum(1) - jnp.diagonal(likeness)) / copies


def diversity(layer: str) -> Objective:
    """Return the dissimilarity of a run's copies: minus the cosines between their Gram matrices.

    Lucid's `diversity` is the sum of these values with the other sign (it is subtracted there).
    """
    return Term({}, layer, _diversity)
