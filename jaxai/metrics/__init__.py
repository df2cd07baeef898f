"""How good a map is: pure functions, arrays in and arrays out, for the maps of any library."""

from ._linear import linear
from ._order import Curve
from ._removal import (
    RelevanceGain,
    Road,
    deletion,
    insertion,
    irof,
    pixel_flipping,
    region_perturbation,
    relevance_gain,
    road,
    selectivity,
)

__all__ = [
    "Curve",
    "RelevanceGain",
    "Road",
    "deletion",
    "insertion",
    "irof",
    "linear",
    "pixel_flipping",
    "region_perturbation",
    "relevance_gain",
    "road",
    "selectivity",
]
