"""pytorch-grad-cam as shipped, and on frozen channels-last networks with larger batches."""

import numpy as np
import pytorch_grad_cam as peer
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget

from .torch_networks import about as about
from .torch_networks import load

PACKAGES = ("torch", "grad-cam")
_KINDS = {
    "grad_cam": peer.GradCAM,
    "grad_cam_plus_plus": peer.GradCAMPlusPlus,
    "xgrad_cam": peer.XGradCAM,
    "hires_cam": peer.HiResCAM,
    "element_wise_grad_cam": peer.GradCAMElementWise,
    "layer_cam": peer.LayerCAM,
    "eigen_cam": peer.EigenCAM,
    "eigen_grad_cam": peer.EigenGradCAM,
    "kpca_cam": peer.KPCA_CAM,
    "fem": peer.FEM,
    "shapley_cam": peer.ShapleyCAM,
    "finer_cam": peer.FinerCAM,
    "full_grad": peer.FullGrad,
    "ablation_cam": peer.AblationCAM,
    "score_cam": peer.ScoreCAM,
}


def prepare(command):
    """Return the run, or None where pytorch-grad-cam has no such method."""
    method, tuned = command["case"]["method"], command["tuned"]
    if method not in _KINDS:
        return None
    network, layer, images, classes = load(command)
    cam = _KINDS[method](model=network, target_layers=[layer])
    if method in ("ablation_cam", "score_cam") and tuned:
        cam.batch_size = 64
    if tuned:
        # Frozen parameters leave only the image to differentiate by.
        images = images.clone().requires_grad_(True)
    count = command["case"]["options"].get("targets")
    with torch.no_grad():
        top = network(images).argsort(dim=1, descending=True)
    wanted = [classes] if not count else list(top[:, :count].T)
    output = ClassifierOutputReST if method == "shapley_cam" else ClassifierOutputTarget

    def explain():
        if method == "finer_cam":
            # It picks the top class and its rivals itself.
            return cam(input_tensor=images, targets=None)
        maps = [cam(input_tensor=images, targets=[output(int(t)) for t in target]) for target in wanted]
        return np.stack(maps, 1) if count else maps[0]

    return explain
