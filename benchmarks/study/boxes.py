"""Boxes around what is named in foolbox's twenty ImageNet photographs and scikit-image's, drawn by hand.

Each box is left, top, right, bottom in percent of the centre square; every instance of the class has one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

Box = tuple[int, int, int, int]
BOXES: dict[str, tuple[Box, ...]] = {
    "00_243": ((23, 9, 62, 90),),
    "01_559": (
        (27, 35, 68, 98),
        (0, 40, 30, 83),
        (70, 43, 100, 85),
        (0, 6, 20, 34),
        (20, 6, 39, 34),
        (41, 3, 58, 34),
        (59, 1, 82, 36),
        (79, 3, 100, 40),
    ),
    "02_438": ((36, 50, 61, 95), (73, 42, 98, 96)),
    "03_990": ((12, 26, 49, 72), (40, 48, 86, 100), (57, 40, 88, 68)),
    "04_949": (
        (38, 4, 60, 28),
        (73, 25, 96, 48),
        (1, 35, 18, 52),
        (20, 37, 37, 56),
        (42, 33, 60, 53),
        (63, 51, 78, 68),
        (13, 56, 29, 77),
        (33, 58, 49, 73),
        (40, 81, 56, 97),
    ),
    "05_853": ((36, 20, 65, 60),),
    "06_609": ((20, 26, 82, 67),),
    "07_609": ((8, 31, 98, 76),),
    "08_915": ((53, 37, 100, 95), (8, 56, 47, 88)),
    "09_455": ((8, 15, 91, 90),),
    "10_541": ((0, 11, 100, 94),),
    "11_630": ((0, 17, 100, 69),),
    # Labelled as a prayer rug; what is shown are two windows.
    "12_741": ((0, 3, 46, 98), (69, 3, 100, 98)),
    "13_471": ((0, 13, 88, 88),),
    "14_129": ((35, 32, 51, 58), (86, 36, 98, 60)),
    "15_99": ((0, 19, 35, 75), (48, 13, 69, 49), (42, 37, 66, 94), (94, 26, 100, 66)),
    "16_251": ((16, 0, 80, 78), (0, 0, 17, 80), (86, 0, 100, 85)),
    "17_22": ((0, 24, 100, 69),),
    "18_317": ((30, 9, 79, 90),),
    "19_305": ((26, 27, 85, 70),),
}
# Photographs that come with scikit-image, by name and class; its astronaut has none of ImageNet's.
SAMPLES: dict[str, tuple[Box, ...]] = {
    "chelsea_285": ((0, 0, 95, 100),),
    "coffee_967": ((18, 4, 78, 79),),
    "rocket_657": ((47, 30, 54, 96),),
}


def files(folder: Path | None = None) -> dict[str, Path]:
    """Return the photographs of the package foolbox by the ends of their names.

    Args:
        folder: Where they are; None: in the installed package.

    Raises:
        FileNotFoundError: If they are not there.
    """
    if folder is None:
        from importlib.util import find_spec

        found = find_spec("foolbox")
        if found is None or found.origin is None:
            raise FileNotFoundError("the photographs are in the package foolbox: pip install foolbox==3.3.4")
        folder = Path(found.origin).parent / "data"
    paths = {name: folder / f"imagenet_{name}.jpg" for name in BOXES}
    for path in paths.values():
        if not path.exists():
            raise FileNotFoundError(f"{path.name} is missing in {folder}")
    return paths


def photos(which: str = "foolbox") -> dict[str, Any]:
    """Return the photographs of `"foolbox"` or `"scikit-image"`, by name, as `preprocess` takes them."""
    if which == "foolbox":
        return {name: str(path) for name, path in files().items()}
    from skimage import data

    return {name: np.asarray(getattr(data, name.split("_")[0])()) for name in SAMPLES}


def label(name: str) -> int:
    """Return the class of a photograph, which ends its name."""
    return int(name.split("_")[1])


def masks(side: int, names: Iterable[str] = tuple(BOXES)) -> jnp.ndarray:
    """Return the pixels in boxes of the photographs of these names, bool [photographs, side, side]."""
    known, names = BOXES | SAMPLES, list(names)
    found = np.zeros((len(names), side, side), bool)
    for mask, name in zip(found, names, strict=True):
        for box in known[name]:
            left, top, right, bottom = (round(side * edge / 100) for edge in box)
            mask[top:bottom, left:right] = True
    return jnp.asarray(found)
