"""Every public method that explains targets, with small settings, for tests that go over all of them."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxai

KEY = jax.random.key(0)
SIZE = (6, 8)
BASELINES = jnp.asarray(np.random.default_rng(8).normal(size=(2, *SIZE, 3)), "float32")
QUARTERS = jnp.arange(6)[:, None] // 3 * 2 + jnp.arange(8) // 4
OVERLAPPING = jnp.stack([QUARTERS < 2, QUARTERS % 2 == 0, QUARTERS > 0])
ON_SEGMENTS = {"segments": QUARTERS, "num_segments": 4}
NOISY = {"key": KEY, "num_samples": 3}


def _gap(model, images, targets=None):
    """Completeness gaps of one step of integrated gradients."""
    found = jaxai.integrated_gradients(model, images, targets, steps=2)
    return jaxai.completeness_gap(model, images, targets, attributions=found)


def _xrai(model, images, targets=None):
    regions = jnp.broadcast_to(OVERLAPPING, (len(images), *OVERLAPPING.shape))
    return jaxai.xrai(model, images, targets, regions=regions, steps=2, min_pixels=1)


# What each explains of a class by default: its score, its probability, or nothing of it.
SCORE = {
    "ablation_cam": jaxai.ablation_cam,
    "blur_integrated_gradients": partial(jaxai.blur_integrated_gradients, steps=3, max_sigma=2.0),
    "class_activation_map": jaxai.class_activation_map,
    "completeness_gap": _gap,
    "conductance": partial(jaxai.conductance, steps=3),
    "deconvnet": jaxai.deconvnet,
    "deep_lift": jaxai.deep_lift,
    "deep_lift_shap": partial(jaxai.deep_lift_shap, baselines=BASELINES),
    "eigen_grad_cam": jaxai.eigen_grad_cam,
    "element_wise_grad_cam": jaxai.element_wise_grad_cam,
    "excitation_backprop": jaxai.excitation_backprop,
    "expected_gradients": partial(jaxai.expected_gradients, baselines=BASELINES, **NOISY),
    "extremal_perturbation": partial(jaxai.extremal_perturbation, steps=3, stride=2, sigma=2.0),
    "feature_ablation": partial(jaxai.feature_ablation, **ON_SEGMENTS),
    "feature_permutation": partial(jaxai.feature_permutation, key=KEY, **ON_SEGMENTS),
    "finer_cam": jaxai.finer_cam,
    "full_grad": jaxai.full_grad,
    "full_gradients": jaxai.full_gradients,
    "fused_cam": partial(jaxai.fused_cam, names=("conv1", "conv2")),
    "grad_cam": jaxai.grad_cam,
    "grad_cam_plus_plus": jaxai.grad_cam_plus_plus,
    "gradient_shap": partial(jaxai.gradient_shap, baselines=BASELINES, **NOISY),
    "guided_backprop": jaxai.guided_backprop,
    "guided_grad_cam": jaxai.guided_grad_cam,
    "guided_integrated_gradients": partial(jaxai.guided_integrated_gradients, steps=3),
    "hires_cam": jaxai.hires_cam,
    "hsic": partial(jaxai.hsic, grid=2, num_designs=8),
    "input_x_gradient": jaxai.input_x_gradient,
    "integrated_gradients": partial(jaxai.integrated_gradients, steps=3),
    "internal_influence": partial(jaxai.internal_influence, steps=3),
    "is_cam": partial(jaxai.is_cam, num_samples=2),
    "layer_cam": jaxai.layer_cam,
    "layer_gradients": jaxai.layer_gradients,
    "layer_integrated_gradients": partial(jaxai.layer_integrated_gradients, steps=3),
    "lrp": jaxai.lrp,
    "occlusion": partial(jaxai.occlusion, window=3, strides=3),
    "saliency": jaxai.saliency,
    "score_cam": jaxai.score_cam,
    "smooth": partial(jaxai.gradients.smooth, jaxai.saliency, **NOISY),
    "smooth_grad": partial(jaxai.smooth_grad, **NOISY),
    "smooth_grad_cam_plus_plus": partial(jaxai.smooth_grad_cam_plus_plus, **NOISY),
    "smooth_grad_squared": partial(jaxai.smooth_grad_squared, **NOISY),
    "smooth_moments": partial(jaxai.gradients.smooth_moments, jaxai.saliency, **NOISY),
    "sobol": partial(jaxai.sobol, grid=2, num_designs=8),
    "ss_cam": partial(jaxai.ss_cam, **NOISY),
    "var_grad": partial(jaxai.var_grad, **NOISY),
    "xgrad_cam": jaxai.xgrad_cam,
    "xrai": _xrai,
}
PROBABILITY = {
    "exact_shapley": partial(jaxai.exact_shapley, **ON_SEGMENTS),
    "kernel_shap": partial(jaxai.kernel_shap, key=KEY, num_samples=14, **ON_SEGMENTS),
    "lime": partial(jaxai.lime, key=KEY, num_samples=16, **ON_SEGMENTS),
    "meaningful_perturbation": partial(jaxai.meaningful_perturbation, key=KEY, steps=3, grid=2, jitter=1),
    "owen_values": partial(jaxai.owen_values, segments=QUARTERS),
    "permutation_shapley": partial(jaxai.permutation_shapley, key=KEY, num_permutations=2, **ON_SEGMENTS),
    "recipro_cam": jaxai.recipro_cam,
    "rise": partial(jaxai.rise, key=KEY, num_masks=16, grid=2),
    "shapley_cam": partial(jaxai.shapley_cam, utility="probability"),
}
NOTHING = {
    "eigen_cam": jaxai.eigen_cam,
    "fem": jaxai.fem,
    "kpca_cam": jaxai.kpca_cam,
    "random_cam": partial(jaxai.random_cam, key=KEY),
}
METHODS = {**SCORE, **PROBABILITY, **NOTHING}


def explaining():
    """The names of all public functions that take targets."""
    for module in (jaxai, jaxai.cam, jaxai.gradients, jaxai.rules, jaxai.perturbation):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and "targets" in inspect.signature(function).parameters:
                yield name


def arrays(result):
    """Return what a method found as arrays, without segments, masks and targets."""
    for name in ("weights", "values"):
        if hasattr(result, name) and not isinstance(result, jax.Array):
            return [getattr(result, name)]
    return jax.tree.leaves(result)
