"""jaxai explains image networks in JAX: pure, compiled, batched functions over callable pytrees."""

import importlib
from typing import TYPE_CHECKING, Any

from . import cam, features, gradients, layers, perturbation, rules, targets

# The CAM family.
from .cam import *  # noqa: F403, I001
from .cpu import configure_cpu

# Feature visualization.
from .features import *  # noqa: F403
from .gradients import *  # noqa: F403
from .layers import chain, split
from .maps import magnitude, normalize, upsample
from .model_check import check_model

# Perturbation.
from .perturbation import *  # noqa: F403

# Rules on the jaxpr.
from .rules import *  # noqa: F403

if TYPE_CHECKING:
    from . import models, plots, weights_convert

__version__ = "0.1.0"

# Subpackages that need Flax, Matplotlib or file formats load when first used.
_LAZY = ("models", "plots", "weights_convert")

__all__ = [
    "chain",
    "check_model",
    "configure_cpu",
    "layers",
    "magnitude",
    "models",
    "normalize",
    "plots",
    "split",
    "targets",
    "upsample",
    "weights_convert",
    *gradients.__all__,
    *cam.__all__,
    *rules.__all__,
    *perturbation.__all__,
    *features.__all__,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
