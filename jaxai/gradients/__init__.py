"""Explanations by the gradient of the score, at the image, along paths to it, and at a layer."""

from ._blur import blur_integrated_gradients
from ._expected import expected_gradients, gradient_shap
from ._frequency import forgrad
from ._fullgrad import FullGradients, full_grad, full_gradients
from ._guided import guided_integrated_gradients
from ._layer import conductance, internal_influence, layer_gradients, layer_integrated_gradients
from ._paths import as_baseline as as_baseline
from ._paths import completeness_gap, integrated_gradients, path_nodes
from ._saliency import input_x_gradient, saliency
from ._smoothing import Moments, smooth, smooth_grad, smooth_grad_squared, smooth_moments, var_grad
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
