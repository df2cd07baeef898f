"""Reads two networks that packages carry as ONNX files, by the operations that use their arrays.

Their names are the exporter's, `onnx::MatMul_1966`, and say nothing.
"""

from typing import Any, BinaryIO

import numpy as np

from .onnx_file import arrays_of, parsed
from .stored import Refused, Stored, stored

_BLOCKS = (3, 4, 6, 3)
_BETWEEN = ("Cast", "Transpose")


def read_onnx_thin_resnet(file: BinaryIO) -> dict[str, Stored]:
    """Read a ResNet 50 whose convolutions are followed by `+ bias - mean`, `* factor`, `+ shift`.

    Returns:
        `conv1.weight` (OIHW) and `.bias`, ..., `logits.kernel` ([in, out]) and `.bias`, by the model's names.

    Raises:
        Refused: If the file is damaged or holds another network.
        ImportError: If the `onnx` package is missing.
    """
    graph, arrays = _opened(file)
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}

    def numbers(name: str) -> np.ndarray | None:
        while name in same:
            name = same[name]
        return arrays[name].read().astype(np.float64) if name in arrays else None

    steps = [node for node in graph.node if node.op_type not in _BETWEEN]
    layers: dict[str, Stored] = {}
    names = iter(_layers())
    for place, node in enumerate(steps):
        if node.op_type not in ("Conv", "MatMul"):
            continue
        kernel = numbers(node.input[1])
        follow = _following(graph, node)
        if node.op_type == "MatMul":
            bias = next((found for found in map(numbers, follow[0].input) if found is not None), None)
            if kernel is None or bias is None:
                raise Refused("the dense layer has no kernel or no bias")
            layers |= {"logits.kernel": stored(kernel), "logits.bias": stored(bias.reshape(-1))}
            continue
        kinds = [step.op_type for step in follow[:4]]
        constants = [
            next((found for found in map(numbers, step.input) if found is not None), None)
            for step in follow[:4]
        ]
        if kinds != ["Add", "Sub", "Mul", "Add"] or kernel is None or any(c is None for c in constants):
            raise Refused(f"expected a batch norm after convolution {place}; got {', '.join(kinds)}")
        bias, mean, factor, shift = (np.reshape(constant, -1) for constant in constants)
        name = next(names, None)
        if name is None:
            raise Refused("it has more convolutions than ResNet 50")
        layers[f"{name}.weight"] = stored(kernel * factor[:, None, None, None])
        layers[f"{name}.bias"] = stored((bias - mean) * factor + shift)
    return layers


def _layers() -> list[str]:
    """Return the model's convolutions in the file's order: a shortcut stands before the last convolution."""
    names = ["conv1"]
    for stage, count in enumerate(_BLOCKS, start=1):
        for index in range(count):
            parts = ["conv1", "conv2", *(["downsample"] if index == 0 else []), "conv3"]
            names += [f"layer{stage}.{index}.{part}" for part in parts]
    return names


def _following(graph: Any, node: Any, count: int = 4) -> list[Any]:
    """Return the operations that follow one by one, changes of type and layout left out."""
    users: dict[str, Any] = {}
    for step in graph.node:
        for name in step.input:
            users.setdefault(name, step)
    found: list[Any] = []
    while len(found) < count and (node := users.get(node.output[0])) is not None:
        if node.op_type not in _BETWEEN:
            found.append(node)
    return found


def read_onnx_saliency_vit(file: BinaryIO) -> dict[str, Stored]:
    """Read a small DINOv2 with a decoder; its transformer gets timm's names, its decoder keeps its own.

    Raises:
        Refused: If the file is damaged or holds another network.
        ImportError: If the `onnx` package is missing.
    """
    graph, arrays = _opened(file)
    # A kernel has the name of the product that uses it, [in, out].
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            arrays[f"{name}.kernel"] = arrays.pop(node.input[1])
    layers = {key: value for key, value in arrays.items() if key.startswith("decoder.")}

    def get(key: str) -> np.ndarray:
        if key not in arrays:
            raise Refused(f"it has no {key}")
        return arrays[key].read()

    def keep(name: str, array: np.ndarray) -> None:
        layers[name] = stored(np.ascontiguousarray(array))

    def of_shape(*shape: int, but: str = "") -> np.ndarray:
        found = [value for key, value in arrays.items() if value.shape == shape and key != but]
        if len(found) != 1:
            raise Refused(f"expected one array {shape} of positions; got {len(found)}")
        return found[0].read()

    start = "backbone.embeddings."
    keep("cls_token", get(f"{start}cls_token"))
    positions = of_shape(1, 1, 384, but=f"{start}cls_token"), of_shape(1, 1369, 384)
    keep("pos_embed", np.concatenate(positions, axis=1))
    for part in ("weight", "bias"):
        keep(f"patch_embed.proj.{part}", get(f"{start}patch_embeddings.projection.{part}"))
        keep(f"norm.{part}", get(f"backbone.layernorm.{part}"))
    for index in range(12):
        source, target = f"backbone.encoder.layer.{index}", f"blocks.{index}"
        inner = [f"{source}.attention.attention.{part}" for part in ("query", "key", "value")]
        keep(f"{target}.attn.qkv.weight", np.concatenate([get(f"{part}.kernel").T for part in inner]))
        keep(f"{target}.attn.qkv.bias", np.concatenate([get(f"{part}.bias") for part in inner]))
        denses = {"attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
        for theirs, ours in denses.items():
            keep(f"{target}.{ours}.weight", get(f"{source}.{theirs}.kernel").T)
            keep(f"{target}.{ours}.bias", get(f"{source}.{theirs}.bias"))
        for place in ("1", "2"):
            keep(f"{target}.ls{place}.gamma", get(f"{source}.layer_scale{place}.lambda1"))
            for part in ("weight", "bias"):
                keep(f"{target}.norm{place}.{part}", get(f"{source}.norm{place}.{part}"))
    return layers


def _opened(file: BinaryIO) -> tuple[Any, dict[str, Stored]]:
    file.seek(0)
    graph = parsed(file.read()).graph
    return graph, arrays_of(graph.initializer)
