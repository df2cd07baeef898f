"""Methods that replace the backward rules of single operations, for any JAX function.

`jaxai` re-exports the methods; rules, composites and `report` have common words for names and stay in here.
"""

from .composites import COMPOSITES as COMPOSITES
from .composites import AlphaBeta as AlphaBeta
from .composites import Composite as Composite
from .composites import Epsilon as Epsilon
from .composites import Flat as Flat
from .composites import Gamma as Gamma
from .composites import Gradient as Gradient
from .composites import Norm as Norm
from .composites import Pass as Pass
from .composites import SignalTakesAll as SignalTakesAll
from .composites import Uniform as Uniform
from .composites import WSquare as WSquare
from .composites import ZBox as ZBox
from .composites import ZPlus as ZPlus
from .deep_lift import deep_lift, deep_lift_shap
from .loop_safe import loop_safe
from .lrp import Report as Report
from .lrp import excitation_backprop, lrp
from .lrp import report as report
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
