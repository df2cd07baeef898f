"""Names of classes: ImageNet's, from timm's WordNet tables (`weights_convert/imagenet_labels.py`)."""

from functools import cache
from importlib.resources import files

IMAGE_FILTER = ("safe", "unsafe")
BRAIN_MRI = ("glioma", "meningioma", "notumor", "pituitary")
# By their WordNet numbers, as the network has them.
DOGS = (
    "Chihuahua",
    "Maltese dog",
    "Shih-Tzu",
    "papillon",
    "Yorkshire terrier",
    "West Highland white terrier",
    "golden retriever",
    "Labrador retriever",
    "Rottweiler",
    "German shepherd",
    "Doberman",
    "bull mastiff",
    "French bulldog",
    "Siberian husky",
    "pug",
    "Samoyed",
    "Pomeranian",
    "toy poodle",
    "miniature poodle",
)


@cache
def imagenet() -> tuple[str, ...]:
    """Return the first WordNet name of each of the 1000 classes; `crane` and `maillot` name two each."""
    return tuple((files(__package__) / "imagenet_labels.txt").read_text("utf-8").splitlines())
