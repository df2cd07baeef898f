"""timm's networks with random weights: exported to ONNX, and run by ONNX Runtime and by PyTorch."""

import os
import warnings
from functools import cache

import numpy as np
import torch

PACKAGES = ("torch", "timm", "onnxruntime")
OPSET = 17


def about():
    """Return how the sides are set up."""
    return f"PyTorch {torch.get_num_threads()} threads; ONNX Runtime with as many, all optimizations"


@cache
def network(name):
    """Return a network with random weights, always the same."""
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


@cache
def compiled(name):
    """Return the network as `torch.compile` has it, a program of its own."""
    torch._dynamo.reset()
    return torch.compile(network(name))


@cache
def session(path):
    """Return ONNX Runtime's session with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export(name, path, size):
    """Write the network as an ONNX file of a free batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(name),
            (torch.zeros(1, 3, size, size),),
            path,
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}},
        )


def prepare(command):
    """Return the run of a case: `export`, or who does what, as `torch.compile saliency`."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    case, name, path = command["case"], command["network"], command["file"]
    if case["method"] == "export":
        return lambda: export(name, path, command["size"])
    images = np.ascontiguousarray(np.load(command["images"]).transpose(0, 3, 1, 2))
    who, what = case["method"].rsplit(" ", 1)
    if who == "ONNX Runtime":
        return (lambda: session(path).run(None, {"images": images})[0]) if what == "forward" else None
    run = compiled(name) if who == "torch.compile" else network(name)
    tensor = torch.from_numpy(images)
    if what == "forward":

        def forward():
            with torch.inference_mode():
                return run(tensor).numpy()

        return forward

    def saliency():
        x = tensor.clone().requires_grad_(True)
        gradient = torch.autograd.grad(run(x)[:, command["class"]].sum(), x)[0]
        return np.moveaxis(gradient.numpy(), 1, -1)

    return saliency
