"""Boxes around what is named in foolbox's twenty ImageNet photographs, drawn by hand.

Each box is left, top, right, bottom in percent of the centre square; every instance of the class has one.
"""

from pathlib import Path

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


def masks(side: int) -> jnp.ndarray:
    """Return the pixels in boxes, bool [20, side, side]."""
    found = np.zeros((len(BOXES), side, side), bool)
    for mask, boxes in zip(found, BOXES.values(), strict=True):
        for box in boxes:
            left, top, right, bottom = (round(side * edge / 100) for edge in box)
            mask[top:bottom, left:right] = True
    return jnp.asarray(found)
