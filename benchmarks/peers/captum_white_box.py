"""Captum's attributions by gradients and rules, as shipped and tuned.

Captum's hooks know `nn.ReLU` alone. On networks of ReLU6 its guided backpropagation and DeepLIFT are silently
the plain gradient; the tuned runs respell ReLU6 by modules that the hooks see.
"""

import numpy as np
import torch
from captum import attr
from torch import nn

from .torch_networks import channels_last


class _Clamp(nn.Module):
    """min(x, 6), whose derivative needs no rule."""

    def forward(self, x):
        return x.clamp(max=6)


def _clamped():
    return nn.Sequential(nn.ReLU(), _Clamp())


class _TwoReLUs(nn.Module):
    """ReLU6 as 6 - relu(6 - relu(x)), for rules that hold for any composition of ReLUs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return 6 - self.second(6 - self.first(x))


class _Flat(nn.Module):
    """A sequence that flattens in its forward function, since Captum's LRP refuses `nn.Flatten`."""

    def __init__(self, network):
        super().__init__()
        self.stages = nn.ModuleList(network)

    def forward(self, x):
        for stage in self.stages:
            x = x.flatten(1) if isinstance(stage, nn.Flatten) else stage(x)
        return x

    def children(self):
        return (stage for stage in self.stages if not isinstance(stage, nn.Flatten))


def _respelled(network, make):
    """Replace every ReLU6 by make()."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.ReLU6):
            setattr(network, name, make())
        else:
            _respelled(child, make)
    return network


_GUIDED = {"guided_backprop": attr.GuidedBackprop, "deconvnet": attr.Deconvolution}
_LAYERED = {
    "layer_gradient_x_activation": (attr.LayerGradientXActivation, {}),
    "layer_integrated_gradients": (attr.LayerIntegratedGradients, {}),
    "internal_influence": (attr.InternalInfluence, {}),
    "conductance": (attr.LayerConductance, {"method": "riemann_trapezoid"}),
}
_NOISY = {"smooth_grad_squared": "smoothgrad_sq", "var_grad": "vargrad"}
METHODS = (
    "input_x_gradient", "deep_lift", "deep_lift_shap", "gradient_shap", "guided_grad_cam", "lrp",
    *_GUIDED, *_LAYERED, *_NOISY,
)  # fmt: skip
_RESPELL = {
    "guided_backprop": _clamped,
    "deconvnet": _clamped,
    "guided_grad_cam": _clamped,
    "deep_lift": _TwoReLUs,
    "deep_lift_shap": _TwoReLUs,
}


def respelling(command):
    """Return what changes a network before a run: nothing, or its ReLU6 for tuned runs of rules."""
    make = _RESPELL.get(command["case"]["method"]) if command["tuned"] else None
    return None if make is None else lambda network: _respelled(network, make)


def prepare(command, network, layer, images, classes):
    """Return the run of one of METHODS, or None where Captum refuses the network."""
    method, options, tuned = command["case"]["method"], command["case"]["options"], command["tuned"]
    inner = 16 if tuned else None

    def fresh():
        return images.clone().requires_grad_(True)

    if method == "input_x_gradient":
        found = attr.InputXGradient(network)
        return lambda: channels_last(found.attribute(fresh(), target=classes))
    if method in _GUIDED:
        guided = _GUIDED[method](network)
        return lambda: channels_last(guided.attribute(fresh(), target=classes))
    if method == "guided_grad_cam":
        product = attr.GuidedGradCam(network, layer)
        return lambda: channels_last(product.attribute(fresh(), target=classes, interpolate_mode="bilinear"))
    if method == "deep_lift":
        lift = attr.DeepLift(network)
        return lambda: channels_last(lift.attribute(fresh(), target=classes))
    if method == "deep_lift_shap":
        average, references = attr.DeepLiftShap(network), _references(command, images)
        return lambda: channels_last(average.attribute(fresh(), references, target=classes))
    if method == "gradient_shap":
        shap, references = attr.GradientShap(network), _references(command, images)

        def sample():
            torch.manual_seed(0)
            np.random.seed(0)
            count = options["samples"]
            return channels_last(shap.attribute(fresh(), references, n_samples=count, target=classes))

        return sample
    if method in _NOISY:
        tunnel = attr.NoiseTunnel(attr.Saliency(network))
        deviation = 0.15 * float(images.max() - images.min())

        def smooth():
            torch.manual_seed(0)
            found = tunnel.attribute(
                images,
                nt_type=_NOISY[method],
                nt_samples=options["samples"],
                nt_samples_batch_size=inner,
                stdevs=deviation,
                target=classes,
                abs=False,
            )
            return channels_last(found)

        return smooth
    if method == "lrp":
        if options.get("composite") != "epsilon" or not isinstance(network, nn.Sequential):
            return None
        if any(isinstance(module, nn.ReLU6) for module in network.modules()):
            return None
        relevance = attr.LRP(_Flat(network))
        return lambda: channels_last(relevance.attribute(fresh(), target=classes))
    kind, extra = _LAYERED[method]
    attribution = kind(network, layer)
    if "steps" in options:
        extra = extra | {"n_steps": options["steps"], "internal_batch_size": inner}
    return lambda: channels_last(attribution.attribute(fresh(), target=classes, **extra))


def _references(command, images):
    """Return four other photos."""
    photos = np.load(command["images"])[1:5].transpose(0, 3, 1, 2).copy()
    return torch.from_numpy(photos).to(images)
