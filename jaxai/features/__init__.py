"""Feature visualization: what a network has learned."""

from .ascent import gradient_ascent
from .dream import deep_dream, noise

__all__ = ["deep_dream", "gradient_ascent", "noise"]
