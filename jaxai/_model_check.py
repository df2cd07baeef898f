"""A check of a user's model before it is explained."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from ._frame import checks, foreign
from ._frame import model as _model


def check_model(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    tolerance: float = 1e-3,
) -> None:
    """Warn if a model is not in inference mode: scores that change with the batch or between calls.

    Batch normalisation by batch statistics and active dropout make the explanation of an image depend on the
    other images or on chance. `model.eval()` puts a Flax NNX module into inference mode,
    `eqx.nn.inference_mode(model)` an Equinox module. The check runs the model on the batch twice and on every
    image alone, which also detects dropout with a fixed key, as an image's noise then depends on its place in
    the batch.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels]; at least two different images.
        tolerance: Largest allowed difference of scores, relative to their largest magnitude.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are fewer than two images, or the scores have no batch axis or are not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.check_model(lambda x: x.sum((1, 2)), jnp.arange(24.0).reshape(2, 2, 2, 3))
    """
    model, images = _model.as_model(model), checks.images(images)
    if images.shape[0] < 2:
        raise ValueError(f"`images` must hold at least two images; got {images.shape[0]}")
    try:
        together = np.asarray(_model.call(model, images), np.float32)
    except foreign.TrainingMode as error:
        warnings.warn(str(error), stacklevel=2)
        return
    if together.ndim < 1 or together.shape[0] != images.shape[0]:
        raise ValueError(
            f"`model` must return scores with the batch axis {images.shape[0]} first;"
            f" got shape {together.shape}"
        )
    if not np.isfinite(together).all():
        raise ValueError("`model` must return finite scores; got NaN or infinity")
    again = np.asarray(_model.call(model, images), np.float32)
    scale = tolerance * max(float(np.abs(together).max()), 1e-30)
    if np.abs(together - again).max() > scale:
        warnings.warn(
            "the model's scores change from call to call: put it into inference mode (dropout off)",
            stacklevel=2,
        )
        return
    each = [_model.call(model, images[i : i + 1]) for i in range(images.shape[0])]
    alone = np.concatenate([np.asarray(scores, np.float32) for scores in each])
    if np.abs(together - alone).max() > scale:
        warnings.warn(
            "an image's scores change with its batch: put the model into inference mode (running statistics,"
            " dropout off)",
            stacklevel=2,
        )
