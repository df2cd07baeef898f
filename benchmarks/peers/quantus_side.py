"""Quantus 0.6, and pytorch-grad-cam's ROAD, as their documentation calls them."""

import warnings

import numpy as np
import quantus
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

from . import torch_networks

PACKAGES = ("quantus", "captum", "grad-cam", "torch", "numpy")
_QUIET = {"disable_warnings": True, "display_progressbar": False}
_SALIENCY = {"method": "Saliency"}


def about():
    """Return what the table says of this side."""
    return torch_networks.about()


def prepare(command):
    """Return a run of one metric on the images, the classes and the maps [batch, height, width] of files."""
    warnings.simplefilter("ignore")
    network, _, images, classes = torch_networks.load(command)
    maps = np.load(command["maps"])
    case = command["case"]
    if case["method"] == "road":
        return lambda: _road(network, images, classes, maps)
    metric = _METRICS[case["method"]]
    explains = case["method"] in ("mprt", "max_sensitivity", "emprt")
    given = {"explain_func": quantus.explain, "explain_func_kwargs": _SALIENCY} if explains else {}

    def run():
        found = metric(case)(
            model=network,
            x_batch=images.numpy().copy(),
            y_batch=classes.numpy(),
            a_batch=None if explains else maps[:, None].copy(),
            device="cpu",
            **given,
        )
        if case["method"] == "mprt":
            return np.array([scores for name, scores in found.items() if name != "original"]).T
        return np.asarray(found, np.float32)

    return run


def _road(network, images, classes, maps):
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    return ROADCombined()(images, maps, targets, network)


def note(case):
    """Return what a reader must know of a row."""
    return ""


_METRICS = {
    # So many pixels a step; Quantus 0.6 repeats the map over channels, and takes three times as many steps.
    "pixel_flipping": lambda case: quantus.PixelFlipping(
        features_in_step=224 * 224 // case["steps"], perturb_baseline="black", **_QUIET
    ),
    "faithfulness_correlation": lambda case: quantus.FaithfulnessCorrelation(
        nr_runs=case["draws"], subset_size=224, perturb_baseline="black", return_aggregate=False, **_QUIET
    ),
    "max_sensitivity": lambda case: quantus.MaxSensitivity(
        nr_samples=case["draws"], lower_bound=0.02, **_QUIET
    ),
    "mprt": lambda case: quantus.MPRT(**_QUIET),
    "emprt": lambda case: quantus.EfficientMPRT(**_QUIET),
}
