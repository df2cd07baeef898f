"""Reading of photos one by one; unreadable ones give one line each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..report import _errors as messages
from ..report._photos import Photo
from . import terminal


def read_all(net: Any, photos: Sequence[Photo], reading: dict[str, Any]) -> tuple[list[Photo], np.ndarray]:
    """Read photos as input of a network; unreadable ones give one line each and are left out.

    Args:
        net: The network, `Pretrained`.
        photos: At least one.
        reading: As for `Photo.crop`.

    Returns:
        The photos that were read, and their pixels float32 [photos, size, size, 3] in [0, 1].

    Raises:
        ValueError: If there is none.
    """
    good, pixels = [], []
    for photo in photos:
        try:
            pixels.append(photo.crop(net, reading))
            good.append(photo)
        except Exception as error:
            if len(photos) == 1:
                raise
            terminal.note(f"error: {messages.described(error)}")
    if not good:
        raise ValueError("none of the photos can be read")
    return good, np.stack(pixels)
