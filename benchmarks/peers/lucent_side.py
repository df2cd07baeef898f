"""torch-lucent's render_vis of one channel."""

import numpy as np
import torch
from lucent.optvis import objectives, param, render

from .torch_networks import DEVICE, load
from .torch_networks import about as about

PACKAGES = ("torch", "torch-lucent")


def prepare(command):
    """Return the run of feature visualization; None for other methods."""
    if command["case"]["method"] != "visualize":
        return None
    network, layer, _, _ = load(command)
    name = next(key for key, module in network.named_children() if module is layer)
    render.device = DEVICE

    def explain():
        torch.manual_seed(0)
        images = render.render_vis(
            network,
            objectives.channel(name, 12),
            param_f=lambda: param.image(224, fft=True, decorrelate=True),
            thresholds=(command["case"]["options"]["steps"],),
            show_image=False,
            progress=False,
        )
        return np.asarray(images[-1])

    return explain
