"""jaxai's side of the attributions by gradients and rules, with the peers' conventions."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxai
from jaxai import rules

KEY = jax.random.key(0)
# As Captum's LRP: one rule for all layers.
_EPSILON = rules.Composite(conv=rules.Epsilon(), dense=rules.Epsilon())


def _pixels(name):
    return lambda model, x, t, options, layer, command: lambda: getattr(jaxai, name)(model, x, t)


def _cam(name):
    return lambda model, x, t, options, layer, command: lambda: getattr(jaxai, name)(model, x, t, layer=layer)


def _layered(name, **fixed):
    def prepare(model, x, t, options, layer, command):
        given = fixed | {"layer": layer} | options
        return lambda: getattr(jaxai, name)(model, x, t, **given)

    return prepare


def _noisy(name):
    return lambda model, x, t, options, layer, command: (
        lambda: getattr(jaxai, name)(model, x, t, key=KEY, num_samples=options["samples"])
    )


def _references(command, x):
    return jnp.asarray(np.load(command["images"])[1:5], x.dtype)


def _gradient_shap(model, x, t, options, layer, command):
    references = _references(command, x)
    return lambda: jaxai.gradient_shap(
        model, x, t, baselines=references, key=KEY, num_samples=options["samples"]
    )


def _deep_lift_shap(model, x, t, options, layer, command):
    references = _references(command, x)
    return lambda: jaxai.deep_lift_shap(model, x, t, baselines=references)


def _lrp(model, x, t, options, layer, command):
    name = options.get("composite", "epsilon_plus_flat")
    if name == "epsilon":
        return lambda: jaxai.lrp(model, x, t, composite=_EPSILON)
    box = {"low": float(x.min()), "high": float(x.max())} if name == "epsilon_gamma_box" else {}
    return lambda: jaxai.lrp(model, x, t, composite=name, **box)


RUNS = {
    **{
        name: _pixels(name)
        for name in (
            "input_x_gradient", "guided_backprop", "deconvnet", "excitation_backprop", "deep_lift",
            "full_grad",
        )
    },
    **{
        name: _cam(name)
        for name in (
            "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "element_wise_grad_cam", "layer_cam", "eigen_cam",
            "eigen_grad_cam", "kpca_cam", "fem", "shapley_cam", "finer_cam", "guided_grad_cam",
        )
    },
    "layer_gradient_x_activation": _layered("layer_gradients", times_activation=True),
    "layer_integrated_gradients": _layered("layer_integrated_gradients"),
    "internal_influence": _layered("internal_influence"),
    "conductance": _layered("conductance", rule="left"),
    "smooth_grad_squared": _noisy("smooth_grad_squared"),
    "var_grad": _noisy("var_grad"),
    "gradient_shap": _gradient_shap,
    "deep_lift_shap": _deep_lift_shap,
    "lrp": _lrp,
}  # fmt: skip
