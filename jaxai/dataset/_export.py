"""A store as tars that WebDataset reads."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from . import _content, _plan


def to_webdataset(
    store: Any,
    folder: str | os.PathLike[str],
    *,
    methods: Sequence[str] | None = None,
    images: bool = True,
    root: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write finished shards as tars; see `Store.to_webdataset`."""
    plan = _plan.moved(store.plan, root)
    known = [name for name, _ in plan.methods]
    for name in methods or ():
        if name not in known:
            raise ValueError(f"the store has maps of {', '.join(known)}; got {name!r}")
    written = []
    for shard in store.status().done:
        numbers = np.array(plan.images_of(shard))
        maps = {name: store.maps[name][numbers] for name in (known if methods is None else methods)}
        rows = store.rows_of(shard)
        path = Path(folder) / f"{shard:06d}.tar"
        with _files.file(path) as new, tarfile.open(new, "w", format=tarfile.PAX_FORMAT) as tar:
            for place, row in enumerate(rows):
                _sample(tar, plan, row, {name: one[place] for name, one in maps.items()}, images)
        written.append(path)
    return written


def _sample(tar: tarfile.TarFile, plan: Any, row: dict[str, Any], maps: dict[str, Any], images: bool) -> None:
    key = f"{row['index']:09d}"
    if images and row["sha256"]:
        suffix = os.path.splitext(row["path"])[1].lower() or ".img"
        _add(tar, key + suffix, _content.read(plan, row["index"]))
    if row["label_index"] is not None:
        _add(tar, f"{key}.cls", str(row["label_index"]).encode())
    _add(tar, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
    if row["error"] is None:
        for name, one in maps.items():
            stream = io.BytesIO()
            np.save(stream, one)
            _add(tar, f"{key}.{name}.npy", stream.getvalue())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # Without times and owners, so that the same store makes the same tars.
    about = tarfile.TarInfo(name)
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))
