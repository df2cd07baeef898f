"""Methods that replace the backward rules of single operations, for any JAX function.

`jaxai` re-exports the methods; rules, composites and `report` have common words for names and stay in here.
"""

from ._composites import COMPOSITES as COMPOSITES
from ._composites import AlphaBeta as AlphaBeta
from ._composites import Composite as Composite
from ._composites import Epsilon as Epsilon
from ._composites import Flat as Flat
from ._composites import Gamma as Gamma
from ._composites import Gradient as Gradient
from ._composites import Norm as Norm
from ._composites import Pass as Pass
from ._composites import SignalTakesAll as SignalTakesAll
from ._composites import Uniform as Uniform
from ._composites import WSquare as WSquare
from ._composites import ZBox as ZBox
from ._composites import ZPlus as ZPlus
from ._deep_lift import deep_lift, deep_lift_shap
from ._loop_safe import loop_safe
from ._lrp import Report as Report
from ._lrp import excitation_backprop, lrp
from ._lrp import report as report
from ._relu import deconvnet, guided_backprop, redirected_relu

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
