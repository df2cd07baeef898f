"""Methods that replace the backward rules of single operations, for any JAX function."""

from .composites import (
    COMPOSITES,
    AlphaBeta,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Norm,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
)
from .deep_lift import deep_lift, deep_lift_shap
from .loop_safe import loop_safe
from .lrp import Report, excitation_backprop, lrp, report
from .relu import deconvnet, guided_backprop, redirected_relu

__all__ = [
    "deconvnet",
    "deep_lift",
    "deep_lift_shap",
    "excitation_backprop",
    "guided_backprop",
    "loop_safe",
    "lrp",
    "redirected_relu",
]

# Rules and composites, for `lrp`; their names are common words, so they stay in this module.
_ = (COMPOSITES, AlphaBeta, Composite, Epsilon, Flat, Gamma, Gradient, Norm, Pass, WSquare, ZBox, ZPlus)
_ += (Report, report)
