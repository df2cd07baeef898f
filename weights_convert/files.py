"""The converted file: one safetensors with flat keys, float32 arrays, and where they came from.

Its metadata names the format, the model, the source file with its SHA-256, and a checksum of the
arrays, so that a damaged file is noticed when it is read.
"""

import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import platformdirs
from safetensors import SafetensorError, safe_open

FORMAT = "jaxai"
VERSION = "1"


def cache_folder() -> Path:
    """Return the folder of converted weights: `JAXAI_CACHE`, else one in the user's cache."""
    folder = os.environ.get("JAXAI_CACHE")
    return Path(folder).expanduser() if folder else platformdirs.user_cache_path("jaxai")


def cache_path(name: str) -> Path:
    """Return where the converted weights of a model lie in the cache."""
    return cache_folder() / f"{name}.safetensors"


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a CRC-32 of all arrays and their names, in the order of the names."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def write(
    path: Path, arrays: Mapping[str, np.ndarray], *, model: str, source: str, source_sha256: str
) -> None:
    """Write a converted file, whole or not at all.

    Args:
        path: Where to; its folder is made if needed.
        arrays: float32 arrays by key.
        model: Name of the model they belong to.
        source: Name of the file they come from.
        source_sha256: That file's SHA-256.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "model": model,
        "source": source,
        "source_sha256": source_sha256,
        "checksum": checksum(arrays),
    }
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(_header(metadata, arrays))
                for name in sorted(arrays):
                    file.write(np.ascontiguousarray(arrays[name], "<f4"))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def _header(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the start of a safetensors file, in an order that does not change from run to run.

    safetensors' own writer shuffles the metadata, so that equal weights would get unequal digests.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name in sorted(arrays):
        end = position + 4 * arrays[name].size
        shape = list(arrays[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read(path: Path, *, model: str) -> dict[str, np.ndarray]:
    """Read a converted file and check that it is whole.

    Args:
        path: A file made by `write`.
        model: The model it must belong to.

    Returns:
        float32 arrays by key.

    Raises:
        ValueError: If the file is damaged, of another model or another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("format_version")) != (FORMAT, VERSION):
                raise ValueError(f"{path} is not a file converted by this version of jaxai")
            if metadata.get("model") != model:
                raise ValueError(f"{path} holds {metadata.get('model')!r}; expected {model!r}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if checksum(arrays) != metadata.get("checksum"):
        raise ValueError(f"{path} is damaged: its numbers do not match their checksum")
    return arrays
