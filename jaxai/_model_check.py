"""A check of a user's model before it is explained."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from ._frame import checks, foreign
from ._frame import model as _model


def check_model(
    model: Any,
    images: Float[Array, "batch height width channels"],
    *,
    tolerance: float = 1e-3,
) -> None:
    """Warn if a model is not in inference mode, or if images are not what the network was said to take.

    Batch normalisation by batch statistics and active dropout make the explanation of an image depend on the
    other images or on chance. `model.eval()` puts a Flax NNX module into inference mode,
    `eqx.nn.inference_mode(model)` an Equinox module. The check runs the model on the batch twice and on every
    image alone, which also detects dropout with a fixed key, as an image's noise then depends on its place in
    the batch.

    Of a `jaxai.models.Pretrained` (from `load` or `from_onnx`) the values are checked too, beside what its
    `normalize` makes of photos in [0, 1]. They are said to be wrong if more than 2 % of them lie outside
    that range, channel by channel, by more than 5 % of its width; or if they lie inside and run from end to
    end of another known range that is narrower by 30 % or more, such as [0, 1] where [-1, 1] is taken (in
    every channel, within 2 % of its width at the low end and 15 % at the high one). Dark and bright photos,
    constant images and noise in the range are not.

    Args:
        model: Callable pytree, `model(images) -> scores`, or a `Pretrained`.
        images: Model input, float [batch, height, width, channels]; at least two different images.
        tolerance: Largest allowed difference of scores, relative to their largest magnitude.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are fewer than two images, or the scores have no batch axis or are not finite.

    Warns:
        UserWarning: If scores change with the batch or from call to call.
        jaxai.models.PhotoNote: If images lie far from what a `Pretrained` takes.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.check_model(lambda x: x.sum((1, 2)), jnp.arange(24.0).reshape(2, 2, 2, 3))
    """
    images = checks.images(images)
    if hasattr(model, "note") and hasattr(model, "normalize"):
        if note := model.note(images):
            warnings.warn(note, stacklevel=2)
        model = model.model
    model = _model.as_model(model)
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
