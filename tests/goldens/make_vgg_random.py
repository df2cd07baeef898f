"""Logits and Grad-CAM of torchvision's VGG networks with random weights.

python make_vgg_random.py OUT.npz
"""

import sys

import numpy as np
import torch
import torchvision
from provenance import centre, imagenet, save
from random_vgg import state_dict
from torch import nn


def images(*names):
    photos = np.stack([imagenet(centre(name, 224)) for name in names])
    return torch.from_numpy(photos.transpose(0, 3, 1, 2).copy())


def load(network, state):
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    return network.eval()


state = state_dict(16, norm=False, dense=(4096, 4096, 1000), seed=16)
vgg16 = load(torchvision.models.vgg16(), state)
check = np.array(
    [float(np.float64(v).sum()) for v in (state["features.0.weight"], state["classifier.6.bias"])]
)
x = images("cat")
acts = vgg16.features[:30](x).detach().requires_grad_(True)
scores = vgg16.classifier(torch.flatten(vgg16.avgpool(vgg16.features[30:](acts)), 1))
target = int(scores.argmax())
(gradient,) = torch.autograd.grad(scores[0, target], acts)
cam = (gradient.mean((2, 3), keepdim=True) * acts).sum(1)[0]

small = torchvision.models.vgg11_bn(init_weights=False)
small.classifier = nn.Sequential(
    nn.Linear(25088, 64),
    nn.ReLU(),
    nn.Dropout(),
    nn.Linear(64, 32),
    nn.ReLU(),
    nn.Dropout(),
    nn.Linear(32, 10),
)
small = load(small, state_dict(11, norm=True, dense=(64, 32, 10), seed=11))
with torch.no_grad():
    small_scores = small(images("cat", "rocket"))
    # Another size than 224: the adaptive average pool is at work.
    larger = torch.from_numpy(imagenet(centre("coffee", 288)).transpose(2, 0, 1)[None].copy())
    larger_scores = small(larger)

save(
    sys.argv[1],
    command="make_vgg_random.py, weights by random_vgg.py (seeds 16 and 11)",
    packages=("torch", "torchvision", "numpy", "scikit-image"),
    weights_check=check,
    vgg16_logits=scores.detach().numpy(),
    vgg16_target=np.array(target),
    vgg16_cam=cam.detach().numpy(),
    vgg11_bn_logits=small_scores.numpy(),
    vgg11_bn_larger=larger_scores.numpy(),
)
