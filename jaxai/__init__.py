"""jaxai explains image networks in JAX: pure, compiled, batched functions over callable pytrees.

This namespace holds the methods; result types, objectives, rules and other parts are in its sub-namespaces.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        attention,
        cam,
        concepts,
        dataset,
        features,
        gradients,
        layers,
        maps,
        metrics,
        models,
        perturbation,
        plots,
        report,
        rules,
        targets,
        weights_convert,
    )
    from ._cpu.configure import configure_cpu
    from ._explain import explain
    from ._model_check import check_model
    from .cam import (
        ablation_cam,
        class_activation_map,
        eigen_cam,
        eigen_grad_cam,
        element_wise_grad_cam,
        fem,
        finer_cam,
        fused_cam,
        grad_cam,
        grad_cam_all_classes,
        grad_cam_plus_plus,
        guided_grad_cam,
        hires_cam,
        is_cam,
        kpca_cam,
        layer_cam,
        random_cam,
        recipro_cam,
        score_cam,
        shapley_cam,
        smooth_grad_cam_plus_plus,
        ss_cam,
        xgrad_cam,
    )
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

# Everything is imported on first use: the command answers without JAX, and methods work without Flax,
# Matplotlib and file formats.
_NAMESPACES = (
    *("attention", "cam", "concepts", "dataset", "features", "gradients", "layers", "maps", "metrics"),
    *("models", "perturbation", "plots", "report", "rules", "targets", "weights_convert"),
)
# Other names are looked up in these modules, in this order.
_HOMES = (
    *("_cpu.configure", "_model_check", "layers"),
    *("cam", "gradients", "rules", "perturbation", "features", "_explain"),
)

__all__ = [
    "ablation_cam",
    "accentuate",
    "atlas",
    "attention",
    "black_box",
    "blur_integrated_gradients",
    "cam",
    "caricature",
    "chain",
    "check_model",
    "class_activation_map",
    "completeness_gap",
    "concepts",
    "conductance",
    "configure_cpu",
    "dataset",
    "deconvnet",
    "deep_dream",
    "deep_lift",
    "deep_lift_shap",
    "dream_zoom",
    "eigen_cam",
    "eigen_grad_cam",
    "element_wise_grad_cam",
    "exact_shapley",
    "excitation_backprop",
    "expected_gradients",
    "explain",
    "extremal_perturbation",
    "feature_ablation",
    "feature_permutation",
    "features",
    "fem",
    "finer_cam",
    "fit_lime",
    "forgrad",
    "full_grad",
    "full_gradients",
    "fused_cam",
    "grad_cam",
    "grad_cam_all_classes",
    "grad_cam_plus_plus",
    "gradient_ascent",
    "gradient_shap",
    "gradients",
    "guided_backprop",
    "guided_grad_cam",
    "guided_integrated_gradients",
    "hires_cam",
    "hsic",
    "input_x_gradient",
    "integrated_gradients",
    "internal_influence",
    "invert",
    "is_cam",
    "kernel_shap",
    "kpca_cam",
    "layer_cam",
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
    "random_cam",
    "recipro_cam",
    "report",
    "rise",
    "rules",
    "saliency",
    "score_cam",
    "segment",
    "shapley_cam",
    "smooth_grad",
    "smooth_grad_cam_plus_plus",
    "smooth_grad_squared",
    "sobol",
    "split",
    "ss_cam",
    "targets",
    "var_grad",
    "visualize",
    "weights_convert",
    "xgrad_cam",
    "xrai",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f".{name}", __name__)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jaxai-explain")
    for home in _HOMES if name in __all__ else ():
        module = importlib.import_module(f".{home}", __name__)
        if hasattr(module, name):
            found = globals()[name] = getattr(module, name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
