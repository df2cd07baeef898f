"""The converted file: one safetensors file with flat keys, float32 arrays, and their origin.

Its metadata names the format, the model, the source file with its SHA-256, and a checksum of these and of the
arrays, so that damage is detected when the file is read.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import platformdirs

from .. import _files
from .._files import shown
from . import safetensors_file
from .stored import Refused

FORMAT = "jaxai"
VERSION = "2"


@dataclass(frozen=True, eq=False)
class Weights:
    """Converted weights.

    Attributes:
        arrays: float32 arrays by `<layer>.<parameter>`.
        model: Name of the model that they belong to.
        source: Name of the file that they come from.
        source_sha256: That file's SHA-256.
    """

    arrays: Mapping[str, np.ndarray]
    model: str
    source: str
    source_sha256: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file that `write` makes of them."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def header(self) -> bytes:
        """The header before the numbers."""
        metadata = {
            "format": FORMAT,
            "format_version": VERSION,
            "model": self.model,
            "source": self.source,
            "source_sha256": self.source_sha256,
        }
        metadata["checksum"] = checksum(self.arrays, *metadata.values())
        return safetensors_file.header(metadata, self.arrays)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the file that `write` makes of them."""
        yield self.header
        for name in sorted(self.arrays):
            yield memoryview(np.ascontiguousarray(self.arrays[name], "<f4").reshape(-1).view(np.uint8))


def cache_folder() -> Path:
    """Return the folder of converted weights: `JAXAI_CACHE`, else one in the user's cache.

    Raises:
        OSError: If it lies in the home folder of a user that is not known.
    """
    chosen = os.environ.get("JAXAI_CACHE")
    folder = Path(os.path.expanduser(chosen)) if chosen else platformdirs.user_cache_path("jaxai")
    if str(folder).startswith("~"):
        given = shown(chosen) if chosen else "not set"
        raise OSError(f"`JAXAI_CACHE` is {given}, and the home folder of {folder.parts[0]} is not known")
    return folder


def cache_path(name: str) -> Path:
    """Return the path of a model's converted weights in the cache.

    Raises:
        OSError: If there is no folder for the cache.
    """
    return cache_folder() / f"{name}.safetensors"


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(arrays: Mapping[str, np.ndarray], *words: str) -> str:
    """Return a CRC-32 of words and of all arrays, with their names, types and shapes, in the names' order."""
    value = zlib.crc32("\n".join(words).encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        value = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), value)
        value = zlib.crc32(array, value)
    return f"{value:08x}"


def write(path: Path, weights: Weights) -> None:
    """Write a converted file atomically, and remove what killed processes have left beside it.

    Args:
        path: Where to; its folder is made if needed.
        weights: What to write.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    try:
        _files.sweep(path.parent)
        _files.write(path, weights.chunks())
    except OSError as error:
        raise OSError(f"cannot write {shown(path, 200)}: {shown(error.strerror or error, 200)}") from error


def read(path: Path, *, model: str, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """Read a converted file and check that it is complete.

    Args:
        path: A file made by `write`.
        model: The model that it must belong to.
        shapes: That model's shapes by key.

    Returns:
        Its arrays and their origin.

    Raises:
        ValueError: If the file is damaged, of another model or another format.
    """
    where = shown(path, 200)
    try:
        if not path.is_file():
            raise Refused("it is not a regular file")
        with path.open("rb") as file:
            return _read(file, model, shapes)
    except Refused as error:
        raise ValueError(f"{where} is damaged, or made by another version of jaxai: {error}") from None
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {shown(error.strerror or error)}") from error


def _read(file, model: str, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    text, metadata, stored = safetensors_file.read_safetensors(file)
    if (metadata.get("format"), metadata.get("format_version")) != (FORMAT, VERSION):
        raise Refused("it is not in the format of this version")
    if metadata.get("model") != model:
        raise Refused(f"it holds {shown(metadata.get('model'))}, expected {model}")
    found = {name: (array.dtype, array.shape) for name, array in stored.items()}
    if found != {name: ("float32", shape) for name, shape in shapes.items()}:
        raise Refused(f"its arrays are not those of {model} in float32")
    arrays = {name: stored[name].read() for name in sorted(stored)}
    weights = Weights(arrays, model, metadata.get("source", ""), metadata.get("source_sha256", ""))
    # Writing is reproducible to the byte; the header has the checksum of the numbers.
    if weights.header != text:
        raise Refused("its numbers do not match their checksum")
    return weights
