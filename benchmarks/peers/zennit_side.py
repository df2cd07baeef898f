"""zennit's EpsilonPlusFlat, as shipped and on a frozen channels-last network."""

import torch
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from .torch_networks import about as about
from .torch_networks import channels_last, load

PACKAGES = ("torch", "zennit")


def prepare(command):
    """Return the run of LRP; None for other methods."""
    if command["case"]["method"] != "lrp":
        return None
    network, _, images, classes = load(command)
    one_hot = torch.nn.functional.one_hot(classes, 1000).to(images.dtype)

    def explain():
        with Gradient(model=network, composite=EpsilonPlusFlat()) as attributor:
            return channels_last(attributor(images, one_hot)[1])

    return explain
