"""The bytes of a data set's images, each read once."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._plan import Plan


def read(plan: "Plan", number: int) -> bytes:
    """Return the bytes of an image.

    Raises:
        ValueError: If it is not a regular file.
        OSError: If it cannot be read.
    """
    from ..models import photo_files

    if not plan.tars:
        return photo_files.content(Path(plan.root, plan.paths[number]))
    tar, offset = plan.places[number]
    return photo_files.content(Path(plan.root, plan.tars[tar]), offset, plan.sizes[number])


def given(plan: "Plan", number: int) -> Any:
    """Return an image for `jaxai.explain`: its path, or a PIL image if it is in a tar."""
    from PIL import Image

    if not plan.tars:
        return str(Path(plan.root, plan.paths[number]))
    image: Any = Image.open(io.BytesIO(read(plan, number)))
    image.filename = plan.paths[number]
    return image


def photo(net: Any, content: bytes) -> Any:
    """Return what a network's `crop` takes of a file: its bytes, or a PIL image where it is not ours."""
    from ..models import crop

    if getattr(net.crop, "func", None) is crop.crop:
        return content
    from PIL import Image

    return Image.open(io.BytesIO(content))
