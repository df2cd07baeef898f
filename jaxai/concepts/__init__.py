"""Concepts: directions in a layer's activations, what scores owe to them, what would change them."""

from . import counterfactuals
from ._cav import cav
from ._craft import Craft, craft
from ._maps import concept_maps
from ._sae import Sae, sae, stability
from ._tcav import Tcav, tcav

__all__ = [
    "Craft",
    "Sae",
    "Tcav",
    "cav",
    "concept_maps",
    "counterfactuals",
    "craft",
    "sae",
    "stability",
    "tcav",
]
