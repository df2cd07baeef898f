"""pytorch-grad-cam as shipped, and on frozen channels-last networks with larger batches."""

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, GradCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from .torch_networks import about as about
from .torch_networks import load

PACKAGES = ("torch", "grad-cam")


def prepare(command):
    """Return the run, or None where pytorch-grad-cam has no such method."""
    method = command["case"]["method"]
    kinds = {"grad_cam": GradCAM, "ablation_cam": AblationCAM, "score_cam": ScoreCAM}
    if method not in kinds:
        return None
    network, layer, images, classes = load(command)
    cam = kinds[method](model=network, target_layers=[layer])
    if method != "grad_cam" and command["tuned"]:
        cam.batch_size = 64
    if command["tuned"]:
        # Frozen parameters leave only the image to differentiate by.
        images = images.clone().requires_grad_(True)
    count = command["case"]["options"].get("targets")
    with torch.no_grad():
        top = network(images).argsort(dim=1, descending=True)
    wanted = [classes] if not count else list(top[:, :count].T)

    def explain():
        maps = [
            cam(input_tensor=images, targets=[ClassifierOutputTarget(int(t)) for t in target])
            for target in wanted
        ]
        return np.stack(maps, 1).squeeze(1)

    return explain
