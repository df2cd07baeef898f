"""The names of layers in other frameworks' files: VGG of torchvision, timm and Keras, EfficientNet-Lite.

Each function takes the model's layer names in forward order and returns one rule per layer with parameters.
"""

from collections.abc import Collection, Sequence

from .mappings import (
    CONVOLUTION,
    DENSE,
    DENSE_AFTER_NORM,
    DENSE_ON_POSITIONS,
    PLAIN_DENSE,
    Rule,
    folded,
)

LITE_EPSILON = 1e-3
TORCH_EPSILON = 1e-5
ONNX_HEAD = ("fc6.", "fc7.", "fc8.", "logits.")
_NORM = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
_TORCHVISION_DENSE = ("classifier.0", "classifier.3", "classifier.6")
_TIMM_DENSE = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")


def parameter_keys(prefix: str) -> dict[str, str]:
    """Return the keys of a layer's weight and bias."""
    return {"weight": f"{prefix}.weight", "bias": f"{prefix}.bias"}


def norm_keys(prefix: str) -> dict[str, str]:
    """Return the keys of a batch norm's four arrays."""
    return {argument: f"{prefix}.{key}" for argument, key in _NORM.items()}


def vgg(layer_names: Sequence[str], keys: Collection[str], *, norm: bool) -> list[Rule]:
    """Return the rules of a VGG of torchvision's or timm's, whichever the keys show.

    Args:
        layer_names: conv1_1 ... pool5, fc6, fc7, logits.
        keys: The file's keys.
        norm: Whether a batch norm follows each convolution.
    """
    heads = list(_TIMM_DENSE if _TIMM_DENSE[-1] + ".weight" in keys else _TORCHVISION_DENSE)
    rules, position, first = [], 0, True
    fold = folded(TORCH_EPSILON)
    # `features` counts every module: a convolution, its batch norm, its ReLU, a pool.
    for name in layer_names:
        if name.startswith("pool"):
            position += 1
        elif name.startswith("conv") and norm:
            source = parameter_keys(f"features.{position}") | norm_keys(f"features.{position + 1}")
            rules.append(Rule(name, source, fold))
            position += 3
        elif name.startswith("conv"):
            rules.append(Rule(name, parameter_keys(f"features.{position}"), CONVOLUTION))
            position += 2
        else:
            rules.append(Rule(name, parameter_keys(heads.pop(0)), DENSE_ON_POSITIONS if first else DENSE))
            first = False
    return rules


def efficientnet_lite(layer_names: Sequence[str]) -> list[Rule]:
    """Return the rules of the `efficientnet-lite-pytorch` networks.

    Args:
        layer_names: stem, block1a ... block7a, conv_head, pool, logits.
    """

    def normed(layer: str, weight: str, norm: str) -> Rule:
        keys = {"weight": f"{weight}.weight"} | norm_keys(norm)
        return Rule(layer, keys, folded(LITE_EPSILON))

    rules = [normed("stem", "_conv_stem", "_bn0"), normed("conv_head", "_conv_head", "_bn1")]
    rules.append(Rule("logits", parameter_keys("_fc"), DENSE))
    blocks = [name for name in layer_names if name.startswith("block")]
    for index, name in enumerate(blocks):
        block = f"_blocks.{index}"
        # The first block's expansion is 1: there is no such convolution.
        if index > 0:
            rules.append(normed(f"{name}.expand", f"{block}._expand_conv", f"{block}._bn0"))
        rules.append(normed(f"{name}.depthwise", f"{block}._depthwise_conv", f"{block}._bn1"))
        rules.append(normed(f"{name}.project", f"{block}._project_conv", f"{block}._bn2"))
    return rules


def onnx_vgg16(layer_names: Sequence[str]) -> list[Rule]:
    """Return the rules of `onnx_file.read_onnx_vgg16`'s arrays.

    Args:
        layer_names: conv1_1 ... pool5, and fc6, fc7, fc8, logits unless only the features are wanted.
    """
    rules = []
    for name in layer_names:
        keys = {"kernel": f"{name}.kernel", "bias": f"{name}.bias"}
        if name.startswith("conv"):
            rules.append(Rule(name, parameter_keys(name), CONVOLUTION))
        elif name in ("fc7", "fc8"):
            norm = {"scale": f"{name}.norm.scale", "shift": f"{name}.norm.shift"}
            rules.append(Rule(name, keys | norm, DENSE_AFTER_NORM))
        elif not name.startswith("pool"):
            rules.append(Rule(name, keys, PLAIN_DENSE))
    return rules
