"""Concepts as the scores of a model, so that every method for classes explains concepts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from .. import layers
from .._frame import targets as _targets
from ._codes import Codes, as_codes
from ._craft import Craft


@register_dataclass
@dataclass(frozen=True, eq=False)
class ConceptModel:
    """A model whose scores are concepts: `model(images) -> [batch, concepts]`, the mean codes of images."""

    model: Any
    codes: Codes
    layer: str = field(metadata={"static": True})

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the mean over positions of each concept's code, float32 [batch, concepts]."""
        acts = layers.split_positions(self.model, self.layer, images, dense=True)[0]
        codes = self.codes.encode(acts.astype(jnp.float32))
        return codes.mean((1, 2)) if codes.ndim == 4 else codes


def concept_model(model: Callable[..., Any], concepts: Any, *, layer: str | None = None) -> ConceptModel:
    """Return a model whose scores are concepts, for any method that explains classes.

    `jaxai.smooth_grad(concept_model(net, found), x, 3)` is the map of concept 3 on the pixels. Gradients pass
    through the factorization by implicit differentiation, so they are those of the fitted codes, not of the
    iterations.

    Args:
        model: A layered model (`jaxai.layers.find` of any model, `jaxai.models`, `jaxai.chain`).
        concepts: A `Craft`, an `Sae`, or directions [concepts, channels].
        layer: A name of `model.layer_names`; None is the layer of the `Craft`.

    Returns:
        A callable pytree, images [batch, height, width, channels] to float32 [batch, concepts].

    Raises:
        ValueError: If `layer` is missing, or the concepts are invalid.

    References:
        Fel et al.: CRAFT: Concept Recursive Activation FacTorization for Explainability. CVPR 2023, arXiv
        2211.10154, section 3.4 (implicit differentiation).

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: 2 * x, "logits": lambda x: x.mean((1, 2))})
        >>> of_concepts = jaxai.concepts.concept_model(net, jnp.eye(3)[:2], layer="features")
        >>> jaxai.saliency(of_concepts, jnp.ones((1, 2, 2, 3)), 1)[0, 0, 0].tolist()
        [0.0, 0.5, 0.0]
    """
    if layer is None:
        if not isinstance(concepts, Craft):
            raise ValueError(
                "`layer` must name the layer whose activations the concepts are made of; got None"
            )
        layer = concepts.layer
    return ConceptModel(_targets.as_model(model), as_codes(concepts), layer)
