"""Perturbation methods: explanations from the model's scores of changed images."""

from ._black_box import BlackBox, black_box
from ._exact_shapley import exact_shapley
from ._explanation import LimeExplanation, ShapleyExplanation, SuperpixelDrops
from ._extremal_perturbation import extremal_perturbation
from ._feature_ablation import feature_ablation
from ._feature_permutation import feature_permutation
from ._hsic import hsic, hsic_indices
from ._kernel_shap import kernel_shap
from ._lime import LIME_PRESETS, lime
from ._lime_fit import LimeFit, fit_lime, lime_limit
from ._meaningful_perturbation import meaningful_perturbation
from ._occlusion import occlusion
from ._owen_values import owen_values
from ._permutation_shapley import permutation_shapley
from ._rise import rise
from ._segments import segment
from ._sobol import sobol, sobol_design, sobol_indices

__all__: list[str] = [
    "LIME_PRESETS",
    "BlackBox",
    "LimeExplanation",
    "LimeFit",
    "ShapleyExplanation",
    "SuperpixelDrops",
    "black_box",
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
