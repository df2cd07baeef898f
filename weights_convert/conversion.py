"""From a foreign file of weights to a converted one."""

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..models import parameters
from ..models.zoo import Entry, entry
from . import files, layouts
from .mappings import apply
from .onnx_file import read_onnx_vgg16
from .pickles import is_torch, read_torch

# torch puts the first eight digits of a file's SHA-256 into its name.
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth?$")


def convert(source: str | Path, name: str, out: str | Path | None = None) -> Path:
    """Convert a file of weights for a model of `jaxai.models.names()`.

    Every array must find its parameter, every parameter its array, and all shapes must match. Nothing that
    the file holds is executed, and nothing is written unless all is well.

    Args:
        source: A torch `.pth` (legacy or zip), safetensors or ONNX file.
        name: The model's name.
        out: Where to write; None writes into the cache, where `jaxai.models.load(name)` looks.

    Returns:
        The converted file.

    Raises:
        ValueError: If the model is unknown, or the file is damaged, tries to run code, or belongs to another
            network.
        OSError: If the source cannot be read or the result not be written.
        ImportError: If an ONNX file is given and the `onnx` package is missing.
    """
    model = entry(name)
    source = Path(source)
    digest = files.sha256(source)
    stated = _DIGEST_IN_NAME.search(source.name)
    if stated and not digest.startswith(stated[1]):
        raise ValueError(
            f"{source.name} is damaged: by its name its SHA-256 starts with {stated[1]}; got {digest[:8]}"
        )
    state = _read(source, model)
    try:
        arrays = _apply(state, model)
    except ValueError as error:
        raise ValueError(f"{source.name} does not fit {name}: {error}") from None
    path = files.cache_path(name) if out is None else Path(out)
    files.write(path, arrays, model=name, source=source.name, source_sha256=digest)
    return path


def _read(source: Path, model: Entry) -> dict[str, np.ndarray]:
    if model.layout == "onnx_vgg16":
        return read_onnx_vgg16(source)
    with source.open("rb") as file:
        start = file.read(9)
    if is_torch(start):
        return read_torch(source)
    if start[8:] == b"{":
        try:
            with safe_open(source, framework="numpy") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{source.name} is truncated or damaged: {error}") from None
    raise ValueError(f"{source.name} is neither a torch .pth nor a safetensors file")


def _apply(state: dict[str, np.ndarray], model: Entry) -> dict[str, np.ndarray]:
    network = parameters.abstract(model.make)
    names = network.layer_names
    if model.layout == "efficientnet_lite":
        rules, ignored = layouts.efficientnet_lite(names), ()
    elif model.layout == "onnx_vgg16":
        rules = layouts.onnx_vgg16(names)
        # The features alone leave the head out on purpose.
        ignored = () if "logits" in names else layouts.ONNX_HEAD
    else:
        rules, ignored = layouts.vgg(names, list(state), norm=model.layout == "vgg_bn"), ()
    arrays = apply(rules, state, ignored=ignored)
    parameters.check(parameters.shapes(network), arrays)
    return arrays
