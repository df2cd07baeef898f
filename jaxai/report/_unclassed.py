"""What is explained of networks without classes: numbers of the maps and the embeddings that they return."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from .. import targets as ready
from . import _classes as classes
from . import _networks as networks
from . import _photos as photos
from ._names import shortened

_MEAN, _LENGTH, _LIKE = "mean", "length", "like="
_BOXED = re.compile(r"(\d*)@(.*)")
_BOX = "LEFT:TOP:RIGHT:BOTTOM"


def wanted(
    net: Any,
    target: str | Sequence[str | int] | None,
    *,
    reading: dict[str, Any],
    shape: tuple[int, int, int] | None = None,
    shown: str = "`--target`",
) -> tuple[Any, classes.Wanted]:
    """Return a network that can name its classes and those that are explained, or numbers of its output.

    Of a map [batch, height, width] or [batch, height, width, channels] (or channels first, which is read from
    the program): `mean`, a channel's number, or either
    within a box, `@LEFT:TOP:RIGHT:BOTTOM` and `3@LEFT:TOP:RIGHT:BOTTOM`, in shares of the map. Of an
    embedding [batch, features]: its `length`, a feature's number, or `like=PHOTO`, the cosine to another
    photo's.

    Args:
        net: The network, `Pretrained`.
        target: As users give it; see `classes.parse` for networks with classes.
        reading: Keywords of `Photo.crop`, for the photo of `like=`.
        shape: Of the network's photos, if it is not [size, size, 3].
        shown: What messages call the target.

    Raises:
        ValueError: If there is no such class, or no such number of the output.
        OSError: If a photo cannot be read.
    """
    words = [] if target is None else target.split(",") if isinstance(target, str) else list(target)
    words = [str(word).strip() for word in words]
    if net.labels is not None or (networks.has_classes(net, shape) and not any(map(_is_special, words))):
        net = networks.with_classes(net, shape)
        return net, classes.parse(target, net.labels, shown=shown)
    output = networks.output_of(net, shape)
    if not 2 <= len(getattr(output, "shape", ())) <= 4:
        raise ValueError(f"{net.name} {networks.without(output)}")
    size, first = output.shape[1:], networks.channels_first(net, shape)
    size = (*size[1:], size[0]) if first else size
    default = _LENGTH if len(size) == 1 or len(size) == 3 and size[2] > 1 else _MEAN
    functions = {}
    for word in words or [default]:
        name, function = _number(net, word, size, reading, shown)
        if name in functions:
            raise ValueError(f"{shown} names {name} twice")
        functions[name] = Partial(_channels_last, function) if first else function
    return net, classes.Wanted(functions=functions)


def _is_special(word: str) -> bool:
    return word in (_MEAN, _LENGTH) or word.startswith(_LIKE) or _BOXED.fullmatch(word) is not None


def _number(
    net: Any, word: str, size: tuple[int, ...], reading: dict[str, Any], shown: str
) -> tuple[str, Callable[..., Any]]:
    """Return a number of the output by its name, and the function of the outputs that it is."""
    if len(size) == 1:
        known = f"{_LENGTH}, {_LIKE}PHOTO or a feature from 0 to {size[0] - 1}"
        if word == _LENGTH:
            return word, ready.length
        if word.startswith(_LIKE):
            return f"like {word.removeprefix(_LIKE)}", _likeness(net, word.removeprefix(_LIKE), reading)
        if word.isdecimal() and int(word) < size[0]:
            return f"feature {int(word)}", Partial(_feature, jnp.asarray(int(word), jnp.int32))
        raise ValueError(f"{shown} of {net.name}, which has no classes, must be {known}; got {_got(word)}")
    channels = size[2] if len(size) == 3 else 1
    many = f", a channel from 0 to {channels - 1}" if channels > 1 else ""
    known = f"{_MEAN}, {_LENGTH}{many} or a box, @{_BOX} in shares of the map"
    boxed = _BOXED.fullmatch(word)
    channel, box = (boxed[1], boxed[2]) if boxed else (word, None)
    if word == _LENGTH:
        return word, ready.length
    if channel not in ("", _MEAN) and not (channel.isdecimal() and int(channel) < channels):
        raise ValueError(f"{shown} of {net.name}, which has no classes, must be {known}; got {_got(word)}")
    if box is not None and reading.get("fit") == photos.TILE:
        raise ValueError(f"{shown} must not be a box for `fit` tile: each tile has a map of its own")
    weights = np.ones(size[:2], bool) if box is None else _box(box, size[:2], shown)
    where = "" if box is None else f" in {box}"
    if channel not in ("", _MEAN):
        index = None if len(size) == 2 else int(channel)
        return f"channel {int(channel)}{where}", ready.region(index, weights)
    if len(size) == 2:
        return f"{_MEAN}{where}", ready.region(None, weights)
    return f"{_MEAN}{where}", Partial(_mean_of_channels, ready.region(None, weights))


def _got(word: str) -> str:
    return repr(shortened(word))


def _box(text: str, size: tuple[int, ...], shown: str) -> np.ndarray:
    """Return which cells of a map have their centre in a box, bool [height, width]."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(":"))
    except ValueError:
        left = top = right = bottom = np.nan
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"{shown}: a box is {_BOX} with shares from 0 to 1; got {_got(text)}")
    rows, columns = ((np.arange(length) + 0.5) / length for length in size)
    mask = ((top <= rows) & (rows < bottom))[:, None] & ((left <= columns) & (columns < right))
    if not mask.any():
        raise ValueError(f"{shown}: the box {text} is smaller than a cell of the map, {size[0]} x {size[1]}")
    return mask


def _likeness(net: Any, word: str, reading: dict[str, Any]) -> Partial:
    """Return the cosine to a photo's embedding."""
    found = photos.find([word]).photos
    if len(found) != 1:
        raise ValueError(f"{_LIKE} takes one photo; {word} holds {len(found)}")
    # Tiles are of the photos that are explained.
    way = {name: value for name, value in reading.items() if (name, value) != ("fit", photos.TILE)}
    pixels = jnp.asarray(found[0].crop(net, way))[None]
    embedding = jax.jit(lambda model, images: model(images))(net.model, net.normalize(pixels))[0]
    return ready.likeness(embedding.astype(jnp.float32))


def _feature(index: jax.Array, features: jax.Array) -> jax.Array:
    return jnp.take(features, index, axis=1)


def _channels_last(target: Callable[..., Any], maps: jax.Array) -> jax.Array:
    return target(jnp.moveaxis(maps, 1, -1))


def _mean_of_channels(target: Callable[..., Any], maps: jax.Array) -> jax.Array:
    return target(maps.astype(jnp.float32).mean(-1))
