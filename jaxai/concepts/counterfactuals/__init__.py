"""Counterfactuals: the least that changes a decision, checked by the network itself."""

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
