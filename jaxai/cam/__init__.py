"""The CAM family: class activation maps from the activations of one layer."""

from ._activation import eigen_cam, eigen_grad_cam, fem, kpca_cam, random_cam
from ._classes import class_activation_map, grad_cam_all_classes
from ._combined import fused_cam, guided_grad_cam
from ._derived import finer_cam, shapley_cam, smooth_grad_cam_plus_plus
from ._gradient import element_wise_grad_cam, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from ._head import ablation_cam, recipro_cam
from ._score import is_cam, score_cam, ss_cam

__all__ = [
    "ablation_cam",
    "class_activation_map",
    "eigen_cam",
    "eigen_grad_cam",
    "element_wise_grad_cam",
    "fem",
    "finer_cam",
    "fused_cam",
    "grad_cam",
    "grad_cam_all_classes",
    "grad_cam_plus_plus",
    "guided_grad_cam",
    "hires_cam",
    "is_cam",
    "kpca_cam",
    "layer_cam",
    "random_cam",
    "recipro_cam",
    "score_cam",
    "shapley_cam",
    "smooth_grad_cam_plus_plus",
    "ss_cam",
    "xgrad_cam",
]
