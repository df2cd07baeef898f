"""Explanations by asking the model about changed images."""

from .ablation import feature_ablation, feature_permutation
from .black_box import BlackBox, black_box
from .explanation import LimeExplanation, ShapleyExplanation, SuperpixelDrops
from .extremal import extremal_perturbation
from .hsic import hsic, hsic_indices
from .lime import LIME_PRESETS, lime
from .lime_fit import LimeFit, fit_lime, lime_limit
from .meaningful import meaningful_perturbation
from .occlusion import occlusion
from .owen import owen_values
from .rise import rise
from .segments import segment
from .shap import kernel_shap
from .shapley import exact_shapley, permutation_shapley
from .similarity import detection_similarity
from .slic import slic, slic_bound
from .sobol import sobol, sobol_design, sobol_indices

__all__: list[str] = [
    "LIME_PRESETS",
    "BlackBox",
    "LimeExplanation",
    "LimeFit",
    "ShapleyExplanation",
    "SuperpixelDrops",
    "black_box",
    "detection_similarity",
    "exact_shapley",
    "extremal_perturbation",
    "feature_ablation",
    "feature_permutation",
    "fit_lime",
    "hsic",
    "hsic_indices",
    "kernel_shap",
    "lime",
    "lime_limit",
    "meaningful_perturbation",
    "occlusion",
    "owen_values",
    "permutation_shapley",
    "rise",
    "segment",
    "slic",
    "slic_bound",
    "sobol",
    "sobol_design",
    "sobol_indices",
]
