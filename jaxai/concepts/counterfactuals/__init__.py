"""Counterfactuals: minimal changes that flip a decision, verified by the network."""

from ._amounts import ConceptChange, concept_change
from ._neighbours import Neighbours, unlike_neighbours
from ._regions import Regions, smallest_regions
from ._swaps import Swaps, swap_cells

__all__ = [
    "ConceptChange",
    "Neighbours",
    "Regions",
    "Swaps",
    "concept_change",
    "smallest_regions",
    "swap_cells",
    "unlike_neighbours",
]
