"""Explanations by asking the model about changed images."""

from .black_box import BlackBox, black_box
from .explanation import LimeExplanation
from .lime import LimeFit, fit_lime, lime
from .segments import segment

__all__: list[str] = [
    "BlackBox",
    "LimeExplanation",
    "LimeFit",
    "black_box",
    "fit_lime",
    "lime",
    "segment",
]
