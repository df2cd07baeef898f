"""Explanations by asking the model about changed images."""

from .black_box import BlackBox, black_box
from .explanation import LimeExplanation, ShapleyExplanation
from .lime import LIME_PRESETS, lime
from .lime_fit import LimeFit, fit_lime, lime_limit
from .occlusion import occlusion
from .rise import rise
from .segments import segment
from .shap import kernel_shap
from .shapley import exact_shapley, permutation_shapley

__all__: list[str] = [
    "LIME_PRESETS",
    "BlackBox",
    "LimeExplanation",
    "LimeFit",
    "ShapleyExplanation",
    "black_box",
    "exact_shapley",
    "fit_lime",
    "kernel_shap",
    "lime",
    "lime_limit",
    "occlusion",
    "permutation_shapley",
    "rise",
    "segment",
]
