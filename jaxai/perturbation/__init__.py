"""Explanations by asking the model about changed images."""

from ._ablation import feature_ablation, feature_permutation
from ._black_box import BlackBox, black_box
from ._explanation import LimeExplanation, ShapleyExplanation, SuperpixelDrops
from ._extremal import extremal_perturbation
from ._hsic import hsic, hsic_indices
from ._lime import LIME_PRESETS, lime
from ._lime_fit import LimeFit, fit_lime, lime_limit
from ._meaningful import meaningful_perturbation
from ._occlusion import occlusion
from ._owen import owen_values
from ._rise import rise
from ._segments import segment
from ._shap import kernel_shap
from ._shapley import exact_shapley, permutation_shapley
from ._similarity import detection_similarity
from ._sobol import sobol, sobol_design, sobol_indices

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
    "sobol",
    "sobol_design",
    "sobol_indices",
]
