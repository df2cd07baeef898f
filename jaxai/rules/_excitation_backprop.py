"""Excitation backprop: propagation of winning probabilities along excitatory connections."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from ._composites import EXCITATION
from ._lrp import lrp


@describes(title="excitation backprop", result="pixels", cost=lambda o: Passes(2, backward=o.targets))
def excitation_backprop(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Propagate the probability of winning down along excitatory connections.

    Convolutions and dense layers distribute by positive contributions (the z-plus rule, with biases in the
    denominator as in zennit); averages and sums of branches distribute by contribution; ReLUs and all other
    operations keep their gradient. It starts from 1 at the target.

    Args:
        model: Callable pytree, `model(images) -> scores`; for the map of a layer, as in the paper, pass the
            head of `jaxai.split` and its activations.

    Returns:
        Signed values [batch, height, width, channels]; [batch, k, ...] for k classes per image. The paper's
        map is their sum over channels.

    References:
        Zhang, Lin, Brandt, Shen, Sclaroff: Top-down Neural Attention by Excitation Backprop. ECCV 2016,
        arXiv 1608.00507, equations 3 to 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: x.reshape(1, 2) @ jnp.array([[3.0], [-1.0]])
        >>> jaxai.excitation_backprop(net, jnp.ones((1, 1, 2, 1)), 0).ravel().round(3).tolist()
        [1.0, 0.0]
    """
    return lrp(model, images, targets, composite=EXCITATION, strict=strict, batch_size=batch_size)
