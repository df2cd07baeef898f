"""Feature visualization: what a network has learned."""

from . import objectives, parametrize, transforms
from .ascent import gradient_ascent
from .dream import deep_dream, noise
from .visualize import Visualization, visualize

__all__ = ["Visualization", "deep_dream", "gradient_ascent", "noise", "visualize"]
