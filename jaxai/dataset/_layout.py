"""The layout of a store's files, and the encoding of a shard of maps.

STORE/plan.json              what is to be done
STORE/maps/METHOD/zarr.json  Zarr v3, [images, (k,) height, width]; one chunk per image
STORE/maps/METHOD/c/5/0/0    one file per shard (a Zarr shard)
STORE/rows/00005.parquet     a row per image
STORE/thumbnails/00005.jpg   small pictures of a shard's images, side by side
STORE/done/00005.json        checksums of the files of a shard; written last
STORE/leases/00005.json      the worker that explains a shard now
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import _needs


def plan_file(store: Path) -> Path:
    """Return the file of the plan."""
    return store / "plan.json"


def rows_file(shard: int) -> str:
    """Return the name of a shard's rows within a store."""
    return f"rows/{shard:05d}.parquet"


def thumbnails_file(shard: int) -> str:
    """Return the name of a shard's small pictures within a store."""
    return f"thumbnails/{shard:05d}.jpg"


def done_folder(store: Path) -> Path:
    """Return the folder of the files that mark shards as done."""
    return store / "done"


def done_file(store: Path, shard: int) -> Path:
    """Return the file that marks a shard as done."""
    return done_folder(store) / f"{shard:05d}.json"


def lease_file(store: Path, shard: int) -> Path:
    """Return the file that names the worker of a shard."""
    return store / "leases" / f"{shard:05d}.json"


def spec(count: int, shape: tuple[int, ...], dtype: str, per_shard: int) -> dict[str, Any]:
    """Return TensorStore's description of the array of a method's maps.

    Args:
        count: Images of the data set.
        shape: Of the maps of one image.
        dtype: "float16" or "float32".
        per_shard: Images of a shard.
    """
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}]
    # Maps of pixels do not shrink; those of layers, with zeros, do.
    inner.append({"name": "zstd", "configuration": {"level": 3}})
    sharding = {"chunk_shape": [1, *shape], "codecs": inner}
    return {
        "driver": "zarr3",
        "metadata": {
            "shape": [count, *shape],
            "data_type": dtype,
            "fill_value": "NaN",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [per_shard, *shape]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        },
    }


def metadata(count: int, shape: tuple[int, ...], dtype: str, per_shard: int) -> bytes:
    """Return the content of an array's zarr.json."""
    memory = _memory()
    _made(spec(count, shape, dtype, per_shard), memory)
    return bytes(memory.read("zarr.json").result().value)


def encoded(maps: np.ndarray, count: int, dtype: str, per_shard: int, shard: int) -> tuple[str, bytes]:
    """Return the name within its array, and the content, of the file of a shard's maps.

    There is no content if all maps are missing.

    Args:
        maps: Of the images of the shard, [n, ...].
        count: Images of the data set.
        dtype: As for `spec`.
        per_shard: Images of a shard.
        shard: Its number.
    """
    memory = _memory()
    array = _made(spec(count, maps.shape[1:], dtype, per_shard), memory)
    start = shard * per_shard
    array[start : start + len(maps)].write(maps.astype(dtype)).result()
    name = maps_file(shard, maps.ndim - 1)
    return name, bytes(memory.read(name).result().value)


def maps_file(shard: int, axes: int) -> str:
    """Return the name within its array of the file of a shard's maps, which have this many axes per image."""
    return "/".join(["c", str(shard), *["0"] * axes])


def opened(folder: Path) -> Any:
    """Return an array of a store as TensorStore reads it; missing maps are NaN."""
    store = {"driver": "file", "path": str(folder.absolute())}
    return _needs.tensorstore().open({"driver": "zarr3", "kvstore": store}, read=True).result()


def digest(content: bytes) -> str:
    """Return a checksum."""
    return hashlib.sha256(content).hexdigest()


def compact(content: Any) -> str:
    """Return JSON that is the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _memory() -> Any:
    return _needs.tensorstore().KvStore.open({"driver": "memory"}).result()


def _made(how: dict[str, Any], memory: Any) -> Any:
    ts = _needs.tensorstore()
    # An array that lies in the very store from which its files are read.
    return ts.open(how, kvstore=memory, create=True).result()
