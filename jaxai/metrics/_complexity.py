"""Complexity metrics, which depend on the map but not on the model."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._frame import checks
from .._frame.contract import like
from . import _maps, _statistics


def gini(maps: Real[ArrayLike, "batch height width *channels"]) -> Float[Array, " batch"]:
    """Return the Gini index of the map's magnitudes: 0 if all are equal, almost 1 for a single pixel.

    With the magnitudes in ascending order v_1 <= ... <= v_d, 1 - 2 sum_k v_k / |v|_1 (d - k + 1/2) / d.

    Args:
        maps: [batch, height, width], of any library; channels after these are summed with their signs. For k
            maps per image, merge the axes batch and k.

    Returns:
        float32 [batch], in [0, 1 - 1 / d] for d pixels; NaN for a map of zeros. A simple map may be wrong.

    Raises:
        TypeError: If the maps are no real numbers.
        ValueError: If the shape does not fit, or a map is NaN.

    References:
        Chalasani et al.: Concise Explanations of Neural Networks using Adversarial Training. ICML 2020, arXiv
        1810.06583, equation 11.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.gini(jnp.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [-3.0, 0.0]]])).tolist()
        [0.0, 0.75]
    """
    return _gini(_flat(maps))


@jax.jit
def _gini(values):
    ordered = jnp.sort(jnp.abs(values), axis=-1)
    count = values.shape[-1]
    weights = (count - jnp.arange(1, count + 1) + 0.5) / count
    total = ordered.sum(-1)
    return 1 - 2 * _statistics.ratio((ordered * weights).sum(-1), total)


def _flat(maps):
    values = _maps.alone(maps)
    return values.reshape(len(values), -1)


@like(gini)
def entropy(maps: Real[ArrayLike, "batch height width *channels"]) -> Float[Array, " batch"]:
    """Return the entropy of the map's magnitudes, normalised by their sum; lower is simpler.

    The paper's complexity: with P_i = |R_i| / sum_j |R_j|, the entropy -sum_i P_i ln P_i.

    Returns:
        float32 [batch] in nats, from 0 for a single pixel to ln(d) for d equal ones; NaN for a map of zeros.

    References:
        Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations. IJCAI 2020, arXiv
        2005.00631, definition 4.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.entropy(jnp.array([[[0.0, 0.0], [5.0, 0.0]]])).tolist()
        [0.0]
    """
    return _entropy(_flat(maps))


@jax.jit
def _entropy(values):
    size = jnp.abs(values)
    total = size.sum(-1, keepdims=True)
    share = size / jnp.where(total > 0, total, 1)
    found = -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0).sum(-1)
    # Zero, not minus zero, for a single pixel.
    return jnp.where(total[..., 0] > 0, jnp.abs(found), jnp.nan)


@like(gini)
def effective_complexity(
    maps: Real[ArrayLike, "batch height width *channels"], *, share: float = 0.01
) -> Float[Array, " batch"]:
    """Return the fraction of pixels whose magnitude is above a share of the map's largest; lower is simpler.

    Args:
        share: Threshold as a fraction of the largest magnitude, in [0, 1). The paper's threshold is absolute
            and chosen by hand.

    Returns:
        float32 [batch], in (0, 1]; NaN for a map of zeros.

    Raises:
        ValueError: If the share is out of range.

    References:
        Nguyen, Martinez: On Quantitative Aspects of Model Interpretability. 2020, arXiv 2007.07584, section
        3.3.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> jaxai.metrics.effective_complexity(jnp.array([[[0.0, 0.001], [-5.0, 1.0]]])).tolist()
        [0.5]
    """
    share = checks.number(share, "share", "[0, 1)")
    size = jnp.abs(_flat(maps))
    largest = size.max(-1, keepdims=True)
    return jnp.where(largest[:, 0] > 0, (size > share * largest).mean(-1), jnp.nan)
