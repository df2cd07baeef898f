"""The CAM family: class activation maps from the activations of one layer."""

from .gradient import grad_cam

__all__ = ["grad_cam"]
