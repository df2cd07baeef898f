"""Measures of dictionaries and codes: similarity of two trainings, and monosemanticity of codes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._sae_training import of_length_one


def stability(
    one: Float[Array, "concepts features"], other: Float[Array, "concepts features"]
) -> tuple[Float[Array, ""], Int[Array, " concepts"]]:
    """Return the similarity of two dictionaries: the mean cosine of their best one-to-one match.

    Args:
        one: Directions [concepts, features], such as those of one training.
        other: Equally many directions.

    Returns:
        The mean cosine, float32 in [-1, 1], and for each direction of `one` the index of its partner.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> mean, partners = jaxai.concepts.stability(jnp.eye(3), jnp.eye(3)[jnp.array([2, 0, 1])])
        >>> float(mean), partners.tolist()
        (1.0, [1, 2, 0])
    """
    from scipy.optimize import linear_sum_assignment

    ours, others = np.asarray(one, np.float32), np.asarray(other, np.float32)
    if ours.ndim != 2 or ours.shape != others.shape:
        raise ValueError(
            f"both must be [concepts, features], of one shape; got {ours.shape} and {others.shape}"
        )
    cosines = np.asarray(of_length_one(jnp.asarray(ours)) @ of_length_one(jnp.asarray(others)).T)
    rows, partners = linear_sum_assignment(-cosines)
    return jnp.asarray(cosines[rows, partners].mean()), jnp.asarray(partners.astype(np.int32))


def monosemanticity(
    codes: Float[Array, "images codes"], embeddings: Float[Array, "images features"]
) -> Float[Array, " codes"]:
    r"""Return the similarity of the images to which a code responds, measured by another network.

    $\sum_{n < m} r_n r_m \cos(e_n, e_m) / \sum_{n < m} r_n r_m$, with each code's responses r scaled to
    [0, 1] over the images.

    Args:
        codes: Responses to images, such as the mean or the maximum over positions of an `Sae`'s codes.
        embeddings: Embeddings of the images by an encoder unrelated to the codes.

    Returns:
        float32 [codes] in [-1, 1]; NaN for codes that respond to fewer than two images.

    Raises:
        ValueError: If shapes do not fit or values are not finite.

    References:
        Pach et al.: Sparse Autoencoders Learn Monosemantic Features in Vision-Language Models. NeurIPS 2025,
        arXiv 2504.02821, equations 5 to 9 (the monosemanticity score).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> codes = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> looks = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> jaxai.concepts.monosemanticity(codes, looks).tolist()
        [1.0, 0.0]
    """
    codes, embeddings = jnp.asarray(codes, jnp.float32), jnp.asarray(embeddings, jnp.float32)
    if codes.ndim != 2 or embeddings.ndim != 2 or len(codes) != len(embeddings) or len(codes) < 2:
        raise ValueError(
            "`codes` must be [images, codes] and `embeddings` [images, features], of two images or more; got"
            f" {codes.shape} and {embeddings.shape}"
        )
    if not (np.isfinite(codes).all() and np.isfinite(embeddings).all()):
        raise ValueError("`codes` and `embeddings` must be finite")
    return _monosemanticity(codes, embeddings)


@jax.jit
def _monosemanticity(codes, embeddings):
    looks = of_length_one(embeddings)
    low = codes.min(0)
    span = codes.max(0) - low
    responses = jnp.where(span > 0, (codes - low) / jnp.where(span > 0, span, 1), 0)
    # Sums over pairs are squares of sums minus the images' pairs with themselves.
    own = jnp.square(responses).sum(0)
    together = jnp.square(responses.sum(0)) - own
    alike = jnp.square(jnp.matmul(responses.T, looks, precision="highest")).sum(1) - own
    some = together > 1e-6 * own
    return jnp.where(some, alike / jnp.where(some, together, 1), jnp.nan)
