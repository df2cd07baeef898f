"""The names of layers in torchvision's and timm's files of ResNet, MobileNetV2, ConvNeXt and transformers.

Each function takes the model's layer names in forward order and the file's keys, which show whose file it is,
and returns a rule for each layer that has parameters.
"""

from collections.abc import Collection, Sequence

from .layouts import TORCH_EPSILON, norm_keys, parameter_keys
from .mappings import (
    CONVOLUTION,
    DENSE,
    LAYER_NORM,
    PLAIN_DENSE,
    SCALED_DENSE,
    TRANSPOSED,
    Rule,
    folded,
    tokens,
)

_FOLD = folded(TORCH_EPSILON)


def _normed(layer: str, weight: str, norm: str) -> Rule:
    return Rule(layer, {"weight": f"{weight}.weight"} | norm_keys(norm), _FOLD)


def resnet(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of a ResNet, which torchvision and timm name alike."""
    rules = [_normed("conv1", "conv1", "bn1")]
    for name in layer_names:
        if not name.startswith("layer"):
            continue
        for part in ("1", "2", "3"):
            if f"{name}.conv{part}.weight" in keys:
                rules.append(_normed(f"{name}.conv{part}", f"{name}.conv{part}", f"{name}.bn{part}"))
        if f"{name}.downsample.0.weight" in keys:
            rules.append(_normed(f"{name}.downsample", f"{name}.downsample.0", f"{name}.downsample.1"))
    return rules + _head(layer_names, "fc")


def _head(layer_names: Sequence[str], key: str) -> list[Rule]:
    return [Rule("logits", parameter_keys(key), DENSE)] if "logits" in layer_names else []


def mobilenet_v2(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of a MobileNetV2: torchvision's, timm's, or that of `pytorch-mobilenet-v2`."""
    names = [name for name in layer_names if name.startswith("features.")]
    blocks, top = names[1:-1], names[-1]
    if "conv_stem.weight" in keys:
        stem, last, head = ("conv_stem", "bn1"), ("conv_head", "bn2"), "classifier"
        # Stages of these lengths.
        places = [f"blocks.{stage}.{i}" for stage, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for i in range(n)]
        parts = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        first = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
    else:
        stem, last, head = ("features.0.0", "features.0.1"), (f"{top}.0", f"{top}.1"), "classifier.1"
        places = [f"{name}.conv" for name in blocks]
        if "features.1.conv.0.0.weight" in keys:
            parts = [("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")]
            first = [("0.0", "0.1"), ("1", "2")]
        else:
            parts = [("0", "1"), ("3", "4"), ("6", "7")]
            first = [("0", "1"), ("3", "4")]
    rules = [_normed(names[0], *stem), _normed(top, *last), *_head(layer_names, head)]
    for index, (name, place) in enumerate(zip(blocks, places, strict=True)):
        # The first block's expansion is 1: there is no such convolution.
        layers = ("expand", "depthwise", "project")[1 if index == 0 else 0 :]
        for layer, (weight, norm) in zip(layers, first if index == 0 else parts, strict=True):
            rules.append(_normed(f"{name}.{layer}", f"{place}.{weight}", f"{place}.{norm}"))
    return rules


def convnext(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of a ConvNeXt of torchvision's or timm's."""
    ours = "stem.0.weight" in keys
    stem = ("stem.0", "stem.1") if ours else ("features.0.0", "features.0.1")
    norm, head = ("head.norm", "head.fc") if ours else ("classifier.0", "classifier.2")
    rules = [
        Rule("stem.conv", parameter_keys(stem[0]), CONVOLUTION),
        Rule("stem.norm", parameter_keys(stem[1]), LAYER_NORM),
        Rule("norm", parameter_keys(norm), LAYER_NORM),
        Rule("logits", parameter_keys(head), DENSE),
    ]
    for name in layer_names:
        if not name.startswith("stages."):
            continue
        stage, kind = int(name.split(".")[1]), name.split(".")[2]
        if kind == "downsample":
            place = name if ours else f"features.{2 * stage}"
            rules.append(Rule(f"{name}.norm", parameter_keys(f"{place}.0"), LAYER_NORM))
            rules.append(Rule(f"{name}.conv", parameter_keys(f"{place}.1"), CONVOLUTION))
            continue
        place = name if ours else f"features.{2 * stage + 1}.{name.split('.')[-1]}.block"
        conv, inner, up, down = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2") if ours else ("0", "2", "3", "5")
        scale = f"{place}.gamma" if ours else f"{place.removesuffix('.block')}.layer_scale"
        rules += [
            Rule(f"{name}.conv_dw", parameter_keys(f"{place}.{conv}"), CONVOLUTION),
            Rule(f"{name}.norm", parameter_keys(f"{place}.{inner}"), LAYER_NORM),
            Rule(f"{name}.mlp.fc1", parameter_keys(f"{place}.{up}"), DENSE),
            Rule(f"{name}.mlp.fc2", parameter_keys(f"{place}.{down}") | {"factor": scale}, SCALED_DENSE),
        ]
    return rules


def vit(layer_names: Sequence[str], keys: Collection[str], *, registers: int) -> list[Rule]:
    """Return the rules of a vision transformer of timm's, with or without registers, or of torchvision's."""
    ours = "conv_proj.weight" not in keys
    first = _TIMM if ours else _TORCHVISION
    embed = {"positions": first["positions"], "token": first["token"]}
    if registers:
        embed["registers"] = "reg_token"
    rules = [
        Rule("patch_embed", parameter_keys(first["patches"]), CONVOLUTION),
        # Networks with registers have positions for patches alone.
        Rule("patch_embed", embed, tokens(registers=registers, with_class=not registers)),
        Rule("norm", parameter_keys(first["norm"]), LAYER_NORM),
        *_head(layer_names, first["head"]),
    ]
    for name in layer_names:
        if not name.startswith("blocks."):
            continue
        place = first["block"] + name.removeprefix("blocks.")

        def dense(layer: str, key: str, scale: str, name: str = name, place: str = place) -> Rule:
            factor = f"{place}.{scale}.gamma"
            if factor in keys:
                return Rule(
                    f"{name}.{layer}", parameter_keys(f"{place}.{key}") | {"factor": factor}, SCALED_DENSE
                )
            return Rule(f"{name}.{layer}", parameter_keys(f"{place}.{key}"), DENSE)

        join = "." if ours else "_"
        qkv = {part: f"{place}.{first['qkv']}{join}{part}" for part in ("weight", "bias")}
        rules += [
            Rule(f"{name}.norm1", parameter_keys(f"{place}.{first['norm1']}"), LAYER_NORM),
            Rule(f"{name}.norm2", parameter_keys(f"{place}.{first['norm2']}"), LAYER_NORM),
            Rule(f"{name}.attn.qkv", qkv, DENSE),
            dense("attn.proj", first["proj"], "ls1"),
            Rule(f"{name}.mlp.fc1", parameter_keys(f"{place}.{first['fc1']}"), DENSE),
            dense("mlp.fc2", first["fc2"], "ls2"),
        ]
    return rules


def saliency_vit(layer_names: Sequence[str], keys: Collection[str], *, registers: int) -> list[Rule]:
    """Return the rules of `onnx_networks.read_onnx_saliency_vit`'s arrays."""
    rules = vit([name for name in layer_names if name != "logits"], keys, registers=registers)
    for index in ("1", "2", "3"):
        source = parameter_keys(f"decoder.upconv{index}") | norm_keys(f"decoder.bn{index}")
        rules.append(Rule(f"upconv{index}", source, TRANSPOSED))
    return [*rules, Rule("logits", parameter_keys("decoder.final_conv"), CONVOLUTION)]


def thin_resnet(layer_names: Sequence[str], keys: Collection[str]) -> list[Rule]:
    """Return the rules of `onnx_networks.read_onnx_thin_resnet`'s arrays."""
    layers = [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]
    rules = [Rule(layer, parameter_keys(layer), CONVOLUTION) for layer in sorted(layers)]
    return [*rules, Rule("logits", {"kernel": "logits.kernel", "bias": "logits.bias"}, PLAIN_DENSE)]


_TIMM = {
    "positions": "pos_embed",
    "token": "cls_token",
    "patches": "patch_embed.proj",
    "norm": "norm",
    "head": "head",
    "block": "blocks.",
    "norm1": "norm1",
    "norm2": "norm2",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_TORCHVISION = {
    "positions": "encoder.pos_embedding",
    "token": "class_token",
    "patches": "conv_proj",
    "norm": "encoder.ln",
    "head": "heads.head",
    "block": "encoder.layers.encoder_layer_",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "qkv": "self_attention.in_proj",
    "proj": "self_attention.out_proj",
    "fc1": "mlp.0",
    "fc2": "mlp.3",
}
