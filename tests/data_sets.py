"""A folder of small photos, a small network for them, and the files of a store, for tests of data sets."""

import numpy as np
from PIL import Image

import jaxai
from jaxai.report import _networks

SIZE = 16
LABELS = tuple(f"kind {i}" for i in range(7))


def photos(folder, count=11, *, broken=(4,)):
    """Write photos into three class folders; some are no images."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / LABELS[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
        if number in broken:
            path.write_bytes(b"no photo")
    return folder


def network(model):
    """Put a network into its surroundings."""
    return _networks.around(model, "small", labels=LABELS, normalize=(0.5, 0.25), input_size=SIZE)


def planned(net, folder, store, **options):
    """Plan two methods in shards of four, two images at a time."""
    options = {"methods": ["grad_cam", "saliency"], "batch_size": 2, "shard_size": 4, **options}
    return jaxai.dataset.plan(net, folder, store, **options)


def files(store):
    """The bytes of all files of a store that are results."""
    found = {}
    for part in ("plan.json", "maps", "rows"):
        for path in [store / part] if part.endswith("json") else sorted((store / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(store))] = path.read_bytes()
    return found
