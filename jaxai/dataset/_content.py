"""The bytes of a data set's images, each read once."""

import io
from pathlib import Path
from typing import Any

from ._plan import Plan


def read(plan: Plan, number: int) -> bytes:
    """Return the bytes of an image's file.

    Raises:
        ValueError: If it is no regular file.
        OSError: If it cannot be read.
    """
    from ..models import photo_files

    return photo_files.content(Path(plan.root, plan.paths[number]))


def photo(net: Any, content: bytes) -> Any:
    """Return what a network's `crop` takes of a file: its bytes, or a PIL image where it is not ours."""
    from ..models import crop

    if getattr(net.crop, "func", None) is crop.crop:
        return content
    from PIL import Image

    return Image.open(io.BytesIO(content))
