"""Names of classes: ImageNet's, from timm's WordNet tables (`weights_convert/imagenet_labels.py`)."""

from functools import cache
from importlib.resources import files

IMAGE_FILTER = ("safe", "unsafe")
BRAIN_MRI = ("glioma", "meningioma", "notumor", "pituitary")


@cache
def imagenet() -> tuple[str, ...]:
    """Return the first WordNet name of each of the 1000 classes; `crane` and `maillot` name two each."""
    return tuple((files(__package__) / "imagenet_labels.txt").read_text("utf-8").splitlines())
