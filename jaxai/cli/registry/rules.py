"""The rules family on the command line."""

from ... import rules
from . import adapters
from .method import Method

METHODS: tuple[Method, ...] = (
    Method(
        name="guided_backprop",
        run=rules.guided_backprop,
        result="pixels",
        summary="the gradient with only positive gradients passed back through ReLUs",
        cost="1 + k backward",
        paper="Springenberg et al. 2015, arXiv 1412.6806",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
    Method(
        name="deconvnet",
        run=rules.deconvnet,
        result="pixels",
        summary="the gradient with ReLUs applied to the gradients",
        cost="1 + k backward",
        paper="Zeiler and Fergus 2014, arXiv 1311.2901",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
    Method(
        name="excitation_backprop",
        run=rules.excitation_backprop,
        result="pixels",
        summary="the probability of winning along excitatory connections",
        cost="2 + k backward",
        paper="Zhang et al. 2016, arXiv 1608.00507",
        needs=frozenset({"batch_size"}),
    ),
    Method(
        name="lrp",
        run=rules.lrp,
        result="pixels",
        summary="relevance from the score back to the pixels, a rule for each kind of layer",
        cost="2 + k backward",
        paper="Bach et al. 2015; Montavon et al. 2017, arXiv 1512.02479",
        needs=frozenset({"batch_size"}),
        signed=True,
    ),
    Method(
        name="deep_lift",
        run=rules.deep_lift,
        result="pixels",
        summary="the score's difference from a baseline's, shared by the rescale rule",
        cost="1 + k backward (+ 1 for the baseline)",
        paper="Shrikumar et al. 2017, arXiv 1704.02685",
        needs=frozenset({"batch_size"}),
        signed=True,
        title="DeepLIFT",
    ),
    Method(
        name="deep_lift_shap",
        run=adapters.deep_lift_shap,
        result="pixels",
        summary="DeepLIFT averaged over baselines, here eight plain colours",
        cost="8 (2 + k backward)",
        paper="Lundberg, Lee 2017, arXiv 1705.07874",
        needs=frozenset({"batch_size", "normalize"}),
        signed=True,
        title="DeepLIFT-SHAP",
    ),
)
