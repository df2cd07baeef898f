"""Captum as shipped, and tuned: more perturbations a call, bounded batches, frozen channels-last networks."""

import numpy as np
import torch
from captum import attr

from . import captum_white_box
from .torch_networks import about as about
from .torch_networks import channels_last, load

PACKAGES = ("torch", "captum")


def prepare(command):
    """Return the run, or None where Captum has no such method."""
    case, tuned = command["case"], command["tuned"]
    options, method = case["options"], case["method"]
    network, layer, images, classes = load(command, change=captum_white_box.respelling(command))
    if method in captum_white_box.METHODS:
        return captum_white_box.prepare(command, network, layer, images, classes)
    if method == "saliency":
        saliency = attr.Saliency(network)
        return lambda: channels_last(
            saliency.attribute(images.clone().requires_grad_(True), target=classes, abs=False)
        )
    if method == "grad_cam":
        cam = attr.LayerGradCam(network, layer)
        count = options.get("targets")
        with torch.no_grad():
            top = network(images).argsort(dim=1, descending=True)

        def explain():
            x = images.clone().requires_grad_(tuned)
            wanted = [classes] if not count else list(top[:, :count].T)
            maps = []
            for target in wanted:
                raw = cam.attribute(x, target=target, relu_attributions=True)
                maps.append(attr.LayerAttribution.interpolate(raw, (224, 224), "bilinear")[:, 0])
            return torch.stack(maps, 1).squeeze(1).detach().to(torch.float32).cpu().numpy()

        return explain
    if method == "integrated_gradients":
        integrated = attr.IntegratedGradients(network)
        inner = 16 if tuned else None
        return lambda: channels_last(
            integrated.attribute(images, target=classes, n_steps=options["steps"], internal_batch_size=inner)
        )
    if method == "smooth_grad":
        tunnel = attr.NoiseTunnel(attr.Saliency(network))
        deviation = 0.15 * float(images.max() - images.min())
        inner = 16 if tuned else None

        def smooth():
            torch.manual_seed(0)
            return channels_last(
                tunnel.attribute(
                    images,
                    nt_samples=options["samples"],
                    nt_samples_batch_size=inner,
                    stdevs=deviation,
                    target=classes,
                    abs=False,
                )
            )

        return smooth
    if method == "occlusion":
        occlusion = attr.Occlusion(network)
        window, stride = options["window"], options["stride"]

        def cover():
            with torch.inference_mode():
                values = occlusion.attribute(
                    images,
                    sliding_window_shapes=(3, window, window),
                    strides=(3, stride, stride),
                    target=classes,
                    perturbations_per_eval=16 if tuned else 1,
                )
            return values[:, 0].to(torch.float32).cpu().numpy()

        return cover
    if method == "kernel_shap":
        shap = attr.KernelShap(lambda x: torch.softmax(network(x), 1))
        labels = np.load(command["segments"]).astype(np.int64)
        segments, first = torch.from_numpy(labels).to(images.device), np.unique(labels, return_index=True)[1]

        def regress():
            torch.manual_seed(0)
            np.random.seed(0)
            with torch.no_grad():
                values = shap.attribute(
                    images,
                    target=classes,
                    feature_mask=segments[:, None],
                    n_samples=options["samples"],
                    perturbations_per_eval=16 if tuned else 1,
                )
            return values[0, 0].flatten()[first][None].to(torch.float32).cpu().numpy()

        return regress
    return None
