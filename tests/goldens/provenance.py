"""What a golden file says about itself, and the photographs it was made from."""

import platform
from importlib.metadata import version

import numpy as np
from skimage import data

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
PHOTOS = {
    "cat": data.chelsea,
    "coffee": data.coffee,
    "rocket": data.rocket,
    "astronaut": data.astronaut,
}


def centre(name, size):
    """Return the central pixels of a photograph, not resized: uint8 [size, size, 3]."""
    photo = PHOTOS[name]()
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    return photo[top : top + size, left : left + size]


def imagenet(photos):
    """Normalise uint8 photos as torchvision does."""
    return (photos.astype(np.float32) / 255 - MEAN) / STD


def save(path, *, command, packages, **arrays):
    """Write a golden with the command and the versions that made it."""
    versions = [f"{name} {version(name)}" for name in packages]
    text = f"{command}; python {platform.python_version()}, {', '.join(versions)}"
    np.savez_compressed(path, provenance=np.array(text), **arrays)
