"""Conversion of weights files of other frameworks."""

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

from .._files import shown
from ..models import parameters
from ..models.zoo import Entry, entry
from . import files, keras_file, layouts, torch_names
from .files import Weights
from .mappings import Rule, apply
from .onnx_file import read_onnx_vgg16
from .onnx_networks import read_onnx_saliency_vit, read_onnx_thin_resnet
from .safetensors_file import read_safetensors
from .stored import Refused, Stored
from .torch_file import is_torch, read_torch

_ONNX = {
    "onnx_vgg16": read_onnx_vgg16,
    "saliency_vit": read_onnx_saliency_vit,
    "thin_resnet": read_onnx_thin_resnet,
}
# torch puts the first eight digits of a file's SHA-256 into its name.
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth?$")


def convert(source: str | Path, name: str, out: str | Path | None = None) -> Path:
    """Convert a file of weights for a model of `jaxai.models.names()`.

    Every array must find its parameter, every parameter its array, and all types and shapes must match.
    Nothing in the file is executed, and nothing is written unless everything matches.

    Args:
        source: A torch `.pth` (legacy or zip), safetensors, ONNX or Keras HDF5 file.
        name: The model's name.
        out: Where to write; None writes into the cache, where `jaxai.models.load(name)` looks.

    Returns:
        The converted file.

    Raises:
        ValueError: If the model is unknown, or the file is damaged, tries to run code, or belongs to another
            network; or if `out` is the source.
        OSError: If the source cannot be read or the result not be written.
        ImportError: If an ONNX file is given and the `onnx` package is missing, or an HDF5 file and `h5py`.
    """
    entry(name)
    path = files.cache_path(name) if out is None else Path(out)
    if path.exists() and os.path.samefile(path, source):
        raise ValueError(f"{shown(path, 200)} is the source itself; expected another file to write")
    files.write(path, converted(source, name))
    return path


def converted(source: str | Path, name: str) -> Weights:
    """Convert as `convert` does, in memory."""
    model = entry(name)
    source = Path(source)
    network = parameters.abstract(model.make)
    shapes = parameters.shapes(network)
    # Reading from a pipe could block forever.
    if not stat.S_ISREG(source.stat().st_mode):
        raise OSError(f"{shown(source, 200)} is not a regular file; expected a file of weights")
    with source.open("rb") as file:
        try:
            _check_size(file, name, shapes)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            stated = _DIGEST_IN_NAME.search(source.name)
            if stated and not digest.startswith(stated[1]):
                raise Refused(f"damaged: by its name its SHA-256 starts with {stated[1]}; got {digest[:8]}")
            state = _read(file, model)
        except Refused as error:
            raise ValueError(f"{shown(source.name)}: {error}") from None
        try:
            arrays = apply(_rules(network, model, state), state, shapes, ignored=_ignored(network, model))
            parameters.check(shapes, arrays)
        except ValueError as error:
            raise ValueError(f"{shown(source.name)} does not fit {name}: {error}") from None
    return Weights(arrays, name, shown(source.name), digest)


def _check_size(file: BinaryIO, name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    size, most = os.fstat(file.fileno()).st_size, parameters.largest_source(shapes)
    if size > most:
        raise Refused(f"it has {size} bytes; a file with the weights of {name} has at most {most}")


def _read(file: BinaryIO, model: Entry) -> dict[str, Stored]:
    if model.layout in _ONNX:
        return _ONNX[model.layout](file)
    file.seek(0)
    start = file.read(9)
    if start.startswith(keras_file.MAGIC):
        return keras_file.read_keras(file)
    # A safetensors file starts with the length of its header, which may look like the start of a pickle.
    if start[4:] == b"\0\0\0\0{":
        return read_safetensors(file).arrays
    if is_torch(start):
        return read_torch(file)
    raise Refused("neither a torch .pth nor a safetensors or HDF5 file")


def _rules(network: Any, model: Entry, state: dict[str, Stored]) -> list[Rule]:
    names, keys = _names(network), frozenset(state)
    if model.layout in keras_file.RULES:
        return keras_file.RULES[model.layout](names, keys)
    match model.layout:
        case "efficientnet_lite":
            return layouts.efficientnet_lite(names)
        case "onnx_vgg16":
            return layouts.onnx_vgg16(names)
        case "vgg" | "vgg_bn":
            return layouts.vgg(names, keys, norm=model.layout == "vgg_bn")
        case "vit" | "saliency_vit":
            registers = network.patch_embed.tokens.shape[0] - 1
            return getattr(torch_names, model.layout)(names, keys, registers=registers)
    return getattr(torch_names, model.layout)(names, keys)


def _names(network: Any) -> tuple[str, ...]:
    # A network that is not a chain uses the names of its parts.
    return network.layer_names if hasattr(network, "layer_names") else network.names


def _ignored(network: Any, model: Entry) -> tuple[str, ...]:
    # The features alone leave the head out on purpose.
    alone = model.layout == "onnx_vgg16" and "logits" not in _names(network)
    return layouts.ONNX_HEAD if alone else ()
