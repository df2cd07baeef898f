"""Explanations by the gradient of the score, at the image, along paths to it, and at a layer."""

from .blur import blur_integrated_gradients
from .expected import expected_gradients, gradient_shap
from .frequency import forgrad
from .fullgrad import FullGradients, full_grad, full_gradients
from .guided import guided_integrated_gradients
from .layer import conductance, internal_influence, layer_gradients, layer_integrated_gradients
from .paths import as_baseline as as_baseline
from .paths import completeness_gap, integrated_gradients, path_nodes
from .saliency import input_x_gradient, saliency
from .smoothing import Moments, smooth, smooth_grad, smooth_grad_squared, smooth_moments, var_grad
from .xrai import rank_regions, xrai, xrai_regions

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
