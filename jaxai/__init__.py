"""jaxai explains image networks in JAX: pure, compiled, batched functions over callable pytrees.

The methods stand here; result types, objectives, rules and other parts stand in the namespaces.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import attention, cam, features, gradients, layers, maps, perturbation, rules, targets
from ._cpu.configure import configure_cpu
from ._model_check import check_model
from .cam import *  # noqa: F403
from .features import (
    accentuate,
    atlas,
    caricature,
    deep_dream,
    dream_zoom,
    gradient_ascent,
    invert,
    maco,
    visualize,
)
from .gradients import (
    blur_integrated_gradients,
    completeness_gap,
    conductance,
    expected_gradients,
    forgrad,
    full_grad,
    full_gradients,
    gradient_shap,
    guided_integrated_gradients,
    input_x_gradient,
    integrated_gradients,
    internal_influence,
    layer_gradients,
    layer_integrated_gradients,
    saliency,
    smooth_grad,
    smooth_grad_squared,
    var_grad,
    xrai,
)
from .layers import chain, split
from .perturbation import (
    black_box,
    exact_shapley,
    extremal_perturbation,
    feature_ablation,
    feature_permutation,
    fit_lime,
    hsic,
    kernel_shap,
    lime,
    meaningful_perturbation,
    occlusion,
    owen_values,
    permutation_shapley,
    rise,
    segment,
    sobol,
)
from .rules import (
    deconvnet,
    deep_lift,
    deep_lift_shap,
    excitation_backprop,
    guided_backprop,
    loop_safe,
    lrp,
)

if TYPE_CHECKING:
    from . import concepts, dataset, metrics, models, plots, report, weights_convert
    from ._explain import explain

# Subpackages that need Flax, Matplotlib or file formats, or explain nothing, load when first used.
_LAZY = ("concepts", "dataset", "metrics", "models", "plots", "report", "weights_convert")

__all__ = [
    "accentuate",
    "atlas",
    "attention",
    "black_box",
    "blur_integrated_gradients",
    "cam",
    "caricature",
    "chain",
    "check_model",
    "completeness_gap",
    "conductance",
    "concepts",
    "configure_cpu",
    "dataset",
    "deconvnet",
    "deep_dream",
    "deep_lift",
    "deep_lift_shap",
    "dream_zoom",
    "exact_shapley",
    "excitation_backprop",
    "expected_gradients",
    "explain",
    "extremal_perturbation",
    "feature_ablation",
    "feature_permutation",
    "features",
    "fit_lime",
    "forgrad",
    "full_grad",
    "full_gradients",
    "gradient_ascent",
    "gradient_shap",
    "gradients",
    "guided_backprop",
    "guided_integrated_gradients",
    "hsic",
    "input_x_gradient",
    "integrated_gradients",
    "internal_influence",
    "invert",
    "kernel_shap",
    "layer_gradients",
    "layer_integrated_gradients",
    "layers",
    "lime",
    "loop_safe",
    "lrp",
    "maco",
    "maps",
    "meaningful_perturbation",
    "metrics",
    "models",
    "occlusion",
    "owen_values",
    "permutation_shapley",
    "perturbation",
    "plots",
    "report",
    "rise",
    "rules",
    "saliency",
    "segment",
    "smooth_grad",
    "smooth_grad_squared",
    "sobol",
    "split",
    "targets",
    "var_grad",
    "visualize",
    "weights_convert",
    "xrai",
]
__all__ += cam.__all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name == "explain":
        return importlib.import_module("._explain", __name__).explain
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jaxai-explain")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
