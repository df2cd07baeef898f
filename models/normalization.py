"""Normalisation of photos in [0, 1] to networks' inputs: pure, differentiable, compilable functions."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)
CAFFE_WHOLE_MEAN = (104.0, 117.0, 123.0)
HED_MEAN = (104.00699, 116.66877, 122.67892)


def _bgr_less(photos, mean):
    return photos[..., ::-1] * 255 - jnp.asarray(mean, photos.dtype)


def imagenet(photos: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Subtract ImageNet's mean colour and divide by its standard deviation, as torchvision does.

    Args:
        photos: RGB in [0, 1].
    """
    mean, std = jnp.asarray(IMAGENET_MEAN, photos.dtype), jnp.asarray(IMAGENET_STD, photos.dtype)
    return (photos - mean) / std


def caffe(photos: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Turn RGB to BGR in 0..255 and subtract the mean colour, as Caffe's and Keras' VGG take it.

    Args:
        photos: RGB in [0, 1].
    """
    return _bgr_less(photos, CAFFE_MEAN)


def caffe_whole(photos: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Turn RGB to BGR in 0..255 and subtract the mean colour in whole numbers, as some networks of Caffe.

    Args:
        photos: RGB in [0, 1].
    """
    return _bgr_less(photos, CAFFE_WHOLE_MEAN)


def hed(photos: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Turn RGB to BGR in 0..255 and subtract the mean colour of HED.

    Args:
        photos: RGB in [0, 1].
    """
    return _bgr_less(photos, HED_MEAN)


def identity(photos: Float[Array, "*batch height width channels"]) -> Any:
    """Return the photos: the network was trained on RGB in [0, 1].

    Args:
        photos: RGB in [0, 1].
    """
    return photos


def signed(photos: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Stretch [0, 1] to [-1, 1], as TensorFlow's Inception and MobileNet take it.

    Args:
        photos: RGB in [0, 1].
    """
    return photos * 2 - 1


def standardized(
    photos: Float[Array, "*batch height width channels"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "*batch height width channels"]:
    """Subtract a mean colour and divide by a standard deviation.

    Args:
        photos: In [0, 1].
        mean: One number, or one for each channel, in [0, 1].
        std: Alike.
    """
    return (photos - jnp.asarray(mean, photos.dtype)) / jnp.asarray(std, photos.dtype)
