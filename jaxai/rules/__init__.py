"""Methods that replace the backward rules of single operations, for any JAX function.

`jaxai` re-exports the methods; rules, composites and `report` have generic names and are available only here.
"""

from ._composites import COMPOSITES as COMPOSITES
from ._composites import Composite as Composite
from ._deep_lift import deep_lift, deep_lift_shap
from ._excitation_backprop import excitation_backprop
from ._guided_backprop import deconvnet, guided_backprop, redirected_relu
from ._layer import Layer as Layer
from ._loop_safe import loop_safe
from ._lrp import lrp
from ._products import SignalTakesAll as SignalTakesAll
from ._products import Softmax as Softmax
from ._products import Uniform as Uniform
from ._relevance import AlphaBeta as AlphaBeta
from ._relevance import Epsilon as Epsilon
from ._relevance import Flat as Flat
from ._relevance import Gamma as Gamma
from ._relevance import Gradient as Gradient
from ._relevance import Norm as Norm
from ._relevance import Pass as Pass
from ._relevance import Rule as Rule
from ._relevance import WSquare as WSquare
from ._relevance import ZBox as ZBox
from ._relevance import ZPlus as ZPlus
from ._relevance import divide as divide
from ._relevance import negative as negative
from ._relevance import positive as positive
from ._relevance import stabilize as stabilize
from ._report import Report as Report
from ._report import report as report
from ._winner import Winner as Winner

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
