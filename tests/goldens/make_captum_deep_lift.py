"""DeepLIFT by Captum on a small network without pools, where its numbers are complete.

python make_captum_deep_lift.py OUT.npz

Captum 0.9 misses the difference of the scores by 1 to 15 % on networks with max-pools, so there is none here.
Everything is computed in float64.
"""

import sys

import numpy as np
import torch
from captum.attr import DeepLift, DeepLiftShap
from provenance import save
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 6, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(6, 8, 3, stride=2),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(48, 12),
    nn.Sigmoid(),
    nn.Linear(12, 4),
)
for value in net.state_dict().values():
    value.copy_(value.float())
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 13, 10, 3)).astype(np.float32)
baselines = (0.5 * rng.normal(size=(3, 13, 10, 3))).astype(np.float32)


def tensor(a):
    return torch.from_numpy(a.astype(np.float64).transpose(0, 3, 1, 2).copy())


def last(t):
    return t.detach().numpy().transpose(0, 2, 3, 1).astype(np.float32)


targets = torch.tensor([3, 1])
attributions, delta = DeepLift(net).attribute(
    tensor(x), tensor(baselines[:1]), target=targets, return_convergence_delta=True
)
assert delta.abs().max() < 1e-10, delta
shap = DeepLiftShap(net).attribute(tensor(x), tensor(baselines), target=targets)
save(
    sys.argv[1],
    command="make_captum_deep_lift.py, seed 0, float64",
    packages=("captum", "torch", "numpy"),
    images=x,
    baselines=baselines,
    targets=targets.numpy(),
    deep_lift=last(attributions),
    deep_lift_shap=last(shap),
    **{f"weights.{key}": value.numpy().astype(np.float32) for key, value in net.state_dict().items()},
)
