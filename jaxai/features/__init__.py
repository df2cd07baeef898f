"""Feature visualization: what a network has learned."""

from . import directions, objectives, parametrize, priors, transforms
from ._ascent import gradient_ascent
from ._atlas import Atlas, Dictionary, atlas, semantic_dictionary
from ._dream import deep_dream, noise
from ._factors import Factors, channel_factors, factorize, layer_activations
from ._maco import fit_power_law, maco, natural_spectrum, power_law_spectrum
from ._measure import Exemplars, exemplars, measure
from ._photo import accentuate, caricature, invert
from ._report import Report, Stability, report, seed_stability
from ._visualize import SmallImageWarning, Visualization, visualize
from ._zoom import dream_zoom
from .transforms import Transforms

# Reached through `jaxai.features`, where their short names are clear.
_NAMESPACES = (directions, objectives, parametrize, priors, report, transforms)

__all__ = [
    "Atlas",
    "Dictionary",
    "Exemplars",
    "Factors",
    "Report",
    "SmallImageWarning",
    "Stability",
    "Transforms",
    "Visualization",
    "accentuate",
    "atlas",
    "caricature",
    "channel_factors",
    "deep_dream",
    "dream_zoom",
    "exemplars",
    "factorize",
    "fit_power_law",
    "gradient_ascent",
    "invert",
    "layer_activations",
    "maco",
    "measure",
    "natural_spectrum",
    "noise",
    "power_law_spectrum",
    "seed_stability",
    "semantic_dictionary",
    "visualize",
]
