"""lime's lime_image on PyTorch, with its own batches of ten and with batches of sixteen."""

import numpy as np
import torch
from lime import lime_image
from sklearn.linear_model import Ridge

from .torch_networks import about as about
from .torch_networks import load

PACKAGES = ("torch", "lime", "scikit-learn")


def prepare(command):
    """Return the run of LIME; None for other methods."""
    if command["case"]["method"] != "lime":
        return None
    network, _, images, classes = load(command)
    segments = np.load(command["segments"])[0]
    masks = np.load(command["masks"])[: command["case"]["options"]["samples"]]
    photo = images[0].to(torch.float32).cpu().numpy().transpose(1, 2, 0).astype(np.float64)
    target = int(classes[0])

    def classify(batch):
        x = torch.from_numpy(np.asarray(batch, np.float32).transpose(0, 3, 1, 2))
        x = x.contiguous(memory_format=torch.channels_last) if command["tuned"] else x.contiguous()
        with torch.inference_mode():
            return torch.softmax(network(x.to(images)).to(torch.float32), 1).cpu().numpy()

    explainer = lime_image.LimeImageExplainer(feature_selection="none", random_state=0)
    # The same masks as the other side's, so that the weights can be compared.
    explainer.random_state = _Given(masks)

    def explain():
        result = explainer.explain_instance(
            photo,
            classify,
            labels=(target,),
            top_labels=None,
            hide_color=None,
            num_samples=len(masks),
            batch_size=16 if command["tuned"] else 10,
            segmentation_fn=lambda image: segments,
            model_regressor=Ridge(alpha=1, fit_intercept=True),
        )
        weights = dict(result.local_exp[target])
        return np.array([[weights[i] for i in range(masks.shape[1])]])

    return explain


class _Given:
    """Random numbers that are not: `randint` returns the masks of the comparison."""

    def __init__(self, masks):
        self.masks = masks

    def randint(self, low, high=None, size=None):
        return self.masks.astype(int).reshape(-1)[:size].copy() if size and size > 1 else 0
