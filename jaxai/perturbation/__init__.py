"""Explanations by asking the model about changed images."""

from .black_box import BlackBox, black_box
from .explanation import LimeExplanation, ShapleyExplanation
from .lime import LimeFit, fit_lime, lime
from .occlusion import occlusion
from .rise import rise
from .segments import segment
from .shap import kernel_shap
from .shapley import exact_shapley, permutation_shapley

__all__: list[str] = [
    "BlackBox",
    "LimeExplanation",
    "LimeFit",
    "ShapleyExplanation",
    "black_box",
    "exact_shapley",
    "fit_lime",
    "kernel_shap",
    "lime",
    "occlusion",
    "permutation_shapley",
    "rise",
    "segment",
]
