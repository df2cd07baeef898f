"""shap's KernelExplainer over the same superpixels, filled with zero; it has no batches to tune."""

import numpy as np
import shap
import torch

from .torch_networks import about as about
from .torch_networks import load

PACKAGES = ("torch", "shap")


def prepare(command):
    """Return the run of KernelSHAP; None for other methods."""
    if command["case"]["method"] != "kernel_shap":
        return None
    network, _, images, classes = load(command)
    segments = np.load(command["segments"])[0].astype(np.int64)
    count, target = int(segments.max()) + 1, int(classes[0])

    def predict(coalitions):
        shown = torch.from_numpy(coalitions[:, segments]).to(images)[:, None]
        scores = []
        with torch.inference_mode():
            for chunk in shown.split(16):
                x = images * chunk
                x = x.contiguous(memory_format=torch.channels_last) if command["tuned"] else x
                scores.append(torch.softmax(network(x).to(torch.float32), 1)[:, target])
        return torch.cat(scores).cpu().numpy()

    def explain():
        np.random.seed(0)
        explainer = shap.KernelExplainer(predict, np.zeros((1, count)))
        samples = command["case"]["options"]["samples"]
        return explainer.shap_values(np.ones((1, count)), nsamples=samples, silent=True, l1_reg=False)

    return explain
