"""Gradient methods: gradients of the score at the image, along paths to it, and at a layer."""

from ._blur_integrated_gradients import blur_integrated_gradients
from ._forgrad import forgrad
from ._full_grad import FullGradients, full_grad, full_gradients
from ._gradient_shap import expected_gradients, gradient_shap
from ._guided_integrated_gradients import guided_integrated_gradients
from ._integrated_gradients import completeness_gap, integrated_gradients
from ._layer_gradients import conductance, internal_influence, layer_gradients, layer_integrated_gradients
from ._paths import as_baseline as as_baseline
from ._paths import path_nodes
from ._saliency import input_x_gradient, saliency
from ._smooth_grad import Moments, smooth, smooth_grad, smooth_grad_squared, smooth_moments, var_grad
from ._xrai import rank_regions, xrai, xrai_regions

__all__ = [
    "FullGradients",
    "Moments",
    "blur_integrated_gradients",
    "completeness_gap",
    "conductance",
    "expected_gradients",
    "forgrad",
    "full_grad",
    "full_gradients",
    "gradient_shap",
    "guided_integrated_gradients",
    "input_x_gradient",
    "integrated_gradients",
    "internal_influence",
    "layer_gradients",
    "layer_integrated_gradients",
    "path_nodes",
    "rank_regions",
    "saliency",
    "smooth",
    "smooth_grad",
    "smooth_grad_squared",
    "smooth_moments",
    "var_grad",
    "xrai",
    "xrai_regions",
]
