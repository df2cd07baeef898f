"""Networks from ONNX files of any exporter, ready to explain."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import layers
from .._files import shown
from ..weights_convert.stored import Refused
from . import normalization
from .crop import crop
from .onnx import sizes as onnx_sizes
from .onnx.network import Network, network
from .onnx.reader import Graph, read
from .pretrained import Pretrained

Normalize = Callable[[jax.Array], jax.Array] | Literal["imagenet", "tf", "caffe", "identity"] | tuple
# The default side of photos if the file does not fix it.
_SIDE = 224
_MOST_CHANNELS = 4


def from_onnx(
    path: str | os.PathLike,
    *,
    labels: str | os.PathLike | Sequence[str] | None = None,
    normalize: Normalize | None = None,
    input_size: int | None = None,
) -> Pretrained:
    """Read a network from an ONNX file of any exporter, opset 9 to 22.

    The network is a layered model: it takes images [batch, height, width, channels] also where the file takes
    [batch, channels, height, width], and runs with channels last. Its layers are the results of the file's
    nodes, by the nodes' names; its weights are leaves. Sizes that the file fixes are kept; the batch, and
    sizes that it leaves open, are free. Results have the axes that the file gives them; several are a dict.

    Args:
        path: The file.
        labels: The classes' names, or a text file with one per line; None if there are none.
        normalize: From photos in [0, 1] to what the network takes: "imagenet", "tf" (-1 to 1), "caffe",
            a pair (mean, std) in [0, 1], or a function of photos. None leaves them as they are.
        input_size: Side of the photos in pixels; None is what the file fixes, or 224. A file that fixes
            another size is read for this one if none of its nodes states a size, as in a network of
            convolutions.

    Returns:
        The network with its labels and preprocessing, as `load` returns it.

    Raises:
        ValueError: If the file is damaged or holds what is not supported (the operator and its node are
            named), if its nodes take one size only and it is another, or the labels are not as many as the
            scores.
        TypeError: If an argument is of the wrong kind.
        FileNotFoundError: If there is no such file.
        ImportError: If the `onnx` package is missing.

    Example:
        >>> import jaxai
        >>> file = jaxai.models.zoo.ZOO["vgg16_brain_mri"].source.find()
        >>> net = jaxai.models.from_onnx(file)
        >>> net.input_size, net.model.layer_names[2]
        (240, 'functional_1/block1_conv1_1/Relu')
    """
    path = Path(path)
    try:
        graph = read(path)
        axes = _axes(graph)
        model = network(graph, axes)
        stated, sizes = _sizes(graph, axes, input_size)
        model, batch = _for_batches(model, graph.shape[0], stated)
        if sizes != stated:
            onnx_sizes.check(model, batch, stated, sizes)
        images: Any = jax.ShapeDtypeStruct((batch, *sizes), jnp.float32)
        outputs = jax.eval_shape(model, images)
        found = layers.find(model, images)
    except Refused as error:
        raise ValueError(f"{shown(path.name)}: {error}") from error.__cause__
    names = labels_of(labels)
    if names is not None:
        _check_labels(names, outputs)
    side = max(sizes[:2])
    return Pretrained(
        model=found,
        name=path.stem,
        crop=partial(_cropped, sizes=sizes) if sizes != (side, side, 3) else partial(crop, size=side),
        normalize=normalization_of(normalize),
        labels=names,
        input_size=side,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _axes(graph: Graph) -> tuple[int, ...]:
    """Return which axis of the file's images lies where in [batch, height, width, channels]."""
    shape = graph.shape
    if len(shape) != 4:
        return tuple(range(len(shape)))
    first, end = shape[1], shape[3]
    # A file that transposes its images takes them with channels last.
    turns = any(
        node.op == "Transpose" and node.whole("perm") == [0, 3, 1, 2]
        for node in graph.nodes
        if graph.input in node.inputs
    )
    few = [size is not None and size <= _MOST_CHANNELS for size in (first, end)]
    if turns or few == [False, True]:
        return (0, 1, 2, 3)
    return (0, 2, 3, 1)


def _sizes(
    graph: Graph, axes: tuple[int, ...], input_size: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of one image, [height, width, channels], as the file states it and as it is wanted."""
    if input_size is not None and (type(input_size) is not int or input_size < 1):
        raise TypeError(f"`input_size` must be a positive whole number; got {input_size!r}")
    fixed = [graph.shape[axis] for axis in axes][1:]
    if len(fixed) != 3:
        if None in fixed:
            raise Refused(f"expected images of four axes; got {list(graph.shape)}")
        one = tuple(size for size in fixed if size is not None)
        return one, one
    height, width, channels = fixed
    side, channels = input_size or _SIDE, channels or 3
    stated = height or side, width or side, channels
    return stated, stated if input_size is None else (side, side, channels)


def _for_batches(model: Network, stated: int | None, sizes: tuple[int, ...]) -> tuple[Network, int]:
    """Return a network that takes any number of images, if it can, and a number of images that it takes.

    Files that state a batch of one may shape values for it; those are read for more images if every image
    then gets the scores that it gets alone.
    """
    if stated is None or _takes(model, stated + 1, sizes):
        return model, 1
    read_anew = replace(model, plan=replace(model.plan, single=True))
    if stated == 1 and _takes(read_anew, 2, sizes):
        images = np.random.default_rng(0).random((2, *sizes), np.float32)
        run = jax.jit(lambda model, images: model(images))
        together = jax.tree.leaves(run(read_anew, images))
        apart = [jax.tree.leaves(run(model, image[None])) for image in images]
        joined = [np.concatenate(parts) for parts in zip(*apart, strict=True)]
        if all(
            np.allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max())
            for one, other in zip(together, joined, strict=True)
        ):
            return read_anew, 1
    return model, stated


def _takes(model: Network, batch: int, sizes: tuple[int, ...]) -> bool:
    """Return whether a network gives scores for each image of a batch."""
    try:
        outputs = jax.eval_shape(model, jax.ShapeDtypeStruct((batch, *sizes), jnp.float32))
    except Refused:
        return False
    return all(output.shape[:1] == (batch,) for output in jax.tree.leaves(outputs))


def _cropped(photo: Any, *, sizes: tuple[int, ...], **reading: Any) -> jax.Array:
    """Cut photos as `crop` does, and then to the network's rows, columns and channels."""
    height, width, channels = sizes
    side = max(height, width)
    squares = crop(photo, size=side, **reading)
    top, left = (side - height) // 2, (side - width) // 2
    photos = squares[:, top : top + height, left : left + width]
    if channels == 3:
        return photos
    if channels == 1:
        return photos @ jnp.asarray([[0.299], [0.587], [0.114]], photos.dtype)
    raise ValueError(f"photos have 3 channels; the network takes {channels}: pass it arrays")


def labels_of(labels: Any) -> tuple[str, ...] | None:
    """Return the classes' names, or those of a text file; see `from_onnx`."""
    if labels is None:
        return None
    if isinstance(labels, (str, os.PathLike)):
        try:
            text = Path(labels).read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{shown(labels)}: expected a text file with one class per line") from None
        labels = [line.strip() for line in text.rstrip().split("\n")]
    if not isinstance(labels, Sequence) or not all(isinstance(label, str) for label in labels):
        raise TypeError("`labels` must be the classes' names or a text file with one per line")
    return tuple(labels)


def _check_labels(labels: Sequence[str], outputs: Any) -> None:
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2:
        raise ValueError("`labels` name the classes of a network with one output [batch, classes]")
    if shape[1] != len(labels):
        raise ValueError(f"`labels` must be {shape[1]} names, one per score; got {len(labels)}")


def normalization_of(normalize: Any) -> Callable[[jax.Array], jax.Array]:
    """Return a function from photos in [0, 1] to what a network takes; see `from_onnx`."""
    named: dict[Any, Any] = {
        "imagenet": normalization.imagenet,
        "tf": normalization.signed,
        "caffe": normalization.caffe,
        "identity": normalization.identity,
        None: normalization.identity,
    }
    if normalize is None or isinstance(normalize, str):
        if normalize not in named:
            words = ", ".join(sorted(filter(None, named)))
            raise ValueError(
                f"`normalize` must be one of {words}, a pair (mean, std) or a function; got {normalize!r}"
            )
        return named[normalize]
    if callable(normalize):
        return normalize
    try:
        mean, std = (np.asarray(each, np.float32) for each in normalize)
        fits = all(each.ndim <= 1 and np.isfinite(each).all() for each in (mean, std)) and (std != 0).all()
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "`normalize` must be a pair (mean, std) of finite numbers, or three for each channel"
        )
    return partial(
        normalization.standardized, mean=tuple(mean.ravel().tolist()), std=tuple(std.ravel().tolist())
    )
