"""The CAM family: class activation maps from the activations of one layer."""

from ._ablation_cam import ablation_cam
from ._class_activation_map import class_activation_map
from ._eigen_cam import eigen_cam, eigen_grad_cam, kpca_cam
from ._fem import fem
from ._finer_cam import finer_cam
from ._fused_cam import fused_cam
from ._grad_cam import element_wise_grad_cam, grad_cam, hires_cam, layer_cam, xgrad_cam
from ._grad_cam_all_classes import grad_cam_all_classes
from ._grad_cam_plus_plus import grad_cam_plus_plus
from ._guided_grad_cam import guided_grad_cam
from ._is_cam import is_cam
from ._random_cam import random_cam
from ._recipro_cam import recipro_cam
from ._score_cam import score_cam
from ._shapley_cam import shapley_cam
from ._smooth_grad_cam_plus_plus import smooth_grad_cam_plus_plus
from ._ss_cam import ss_cam

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
