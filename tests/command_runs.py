"""Photos that runs of the command read, and the files and records that they leave."""

import json

import numpy as np
from PIL import Image
from tiny_network import SIZE

RECORD = "explanation.json"
WHOLE = ["explanation.json", "explanation.png", "maps.npz"]


def photo(path, seed=0):
    """Write a photo of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "png")
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def record(folder):
    return json.loads((folder / RECORD).read_text())
