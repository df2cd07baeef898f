"""Concepts: directions in a layer's activations, their influence on scores, and counterfactual changes."""

from . import counterfactuals
from ._cav import cav
from ._concept_model import concept_model
from ._craft import Craft, craft
from ._maps import concept_maps, concept_slopes
from ._measures import monosemanticity, stability
from ._sae import Sae, load_sae, sae
from ._sheets import ConceptSheet, concept_sheets, strongest_concepts
from ._steer import steer
from ._stored import save_activations
from ._subconcepts import subconcepts
from ._tcav import Tcav, tcav
from ._tcav_layers import tcav_layers

__all__ = [
    "ConceptSheet",
    "Craft",
    "Sae",
    "Tcav",
    "cav",
    "concept_maps",
    "concept_model",
    "concept_sheets",
    "concept_slopes",
    "counterfactuals",
    "craft",
    "load_sae",
    "monosemanticity",
    "sae",
    "save_activations",
    "stability",
    "steer",
    "strongest_concepts",
    "subconcepts",
    "tcav",
    "tcav_layers",
]
