"""zennit's composites, as shipped and on a frozen channels-last network."""

import torch
from torch import nn
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.layer import Sum as StackedSum
from zennit.types import Linear

from . import torch_networks
from .torch_networks import about as about
from .torch_networks import channels_last, load

PACKAGES = ("torch", "zennit")
_NAMES = {
    "epsilon_plus": composites.EpsilonPlus,
    "epsilon_plus_flat": composites.EpsilonPlusFlat,
    "epsilon_gamma_box": composites.EpsilonGammaBox,
    "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
    "epsilon_alpha2_beta1_flat": composites.EpsilonAlpha2Beta1Flat,
}


class _Sum(nn.Module):
    """A sum that zennit has a rule for; a plain one would pass all relevance to both branches."""

    def __init__(self):
        super().__init__()
        self.stacked = StackedSum()

    def forward(self, x, y):
        return self.stacked(torch.stack([x, y], dim=-1))


def _with_sums(network):
    for block in network.modules():
        if isinstance(block, torch_networks.Block):
            block.sum = _Sum()
    return network


def _composite(case, tuned, images):
    """Return the composite of a case; None where zennit has none."""
    method = case["method"]
    if method == "lrp":
        name = case["options"].get("composite", "epsilon_plus_flat")
        if name == "epsilon":
            return composites.LayerMapComposite([*composites.layer_map_base(), (Linear, rules.Epsilon())])
        box = {"low": images.min(), "high": images.max()} if name == "epsilon_gamma_box" else {}
        return _NAMES[name](**box)
    if method == "excitation_backprop":
        return composites.ExcitationBackprop()
    # zennit's composites know nn.ReLU alone: without these entries ReLU6 keeps its gradient.
    if method == "guided_backprop":
        return composites.GuidedBackprop(
            layer_map=[(nn.ReLU6, rules.ReLUGuidedBackprop())] if tuned else None
        )
    if method == "deconvnet":
        return composites.DeconvNet(layer_map=[(nn.ReLU6, rules.ReLUDeconvNet())] if tuned else None)
    return None


def prepare(command):
    """Return the run; None for methods that zennit does not have."""
    case = command["case"]
    if case["method"] not in ("lrp", "excitation_backprop", "guided_backprop", "deconvnet"):
        return None
    network, _, images, classes = load(command, change=_with_sums)
    composite = _composite(case, command["tuned"], images)
    one_hot = torch.nn.functional.one_hot(classes, 1000).to(images.dtype)

    def explain():
        with Gradient(model=network, composite=composite) as attributor:
            return channels_last(attributor(images, one_hot)[1])

    return explain
