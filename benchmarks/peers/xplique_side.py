"""Xplique on Keras, with its own batches and with batches of sixteen."""

import numpy as np
import tensorflow as tf
from keras import layers, models
from sklearn.linear_model import Ridge
from xplique import attributions
from xplique import features_visualizations as features

from .keras_networks import LAYERS, load
from .keras_networks import about as about

PACKAGES = ("tensorflow", "keras", "xplique", "scikit-learn")

_BICUBIC = "the peer enlarges its map by bicubic interpolation"
_NOTES = {
    "grad_cam": _BICUBIC,
    "grad_cam_plus_plus": f"{_BICUBIC}, and has the mean activation where the paper has the sum",
    "fem": f"{_BICUBIC}, and sums binary masks by the channels' means",
    "occlusion": "the peer adds the drops of the windows over a pixel, jaxai averages them",
    "integrated_gradients": "the peer takes the trapezoidal rule",
    "lime": "the peer hides superpixels with one colour, jaxai each with its mean",
    "sobol": _BICUBIC,
    "hsic": _BICUBIC,
}
_PIXELS = {
    "input_x_gradient": attributions.GradientInput,
    "guided_backprop": attributions.GuidedBackprop,
    "deconvnet": attributions.DeconvNet,
}
_NOISY = {
    "smooth_grad": attributions.SmoothGrad,
    "smooth_grad_squared": attributions.SquareGrad,
    "var_grad": attributions.VarGrad,
}
_CAMS = {
    "grad_cam": attributions.GradCAM,
    "grad_cam_plus_plus": attributions.GradCAMPP,
    "fem": attributions.FEM,
}
_SLICES = tf.data.Dataset.from_tensor_slices


def note(case):
    """Return what the two sides of a row do not share, or an empty text."""
    if (case["method"], case["network"]) == ("guided_backprop", "efficientnet_lite0"):
        return "the peer's rule lets positive gradients through ReLU6 above 6, where its slope is 0"
    return _NOTES.get(case["method"], "")


def prepare(command):
    """Return the run, or None where Xplique has no such method."""
    case, batch = command["case"], {"batch_size": 16} if command["tuned"] else {}
    method, options = case["method"], case["options"]
    if command["precision"] != "float32" or "targets" in options:
        return None
    tf.data.Dataset.from_tensor_slices = _slices_without_tuning if command["tuned"] else _SLICES
    network, images, targets = load(command)
    tf.random.set_seed(0)  # Not in the run: it empties TensorFlow's caches.
    if method in ("visualize", "maco"):
        return _ascent(method, network, LAYERS[case["network"]], options["steps"])
    explainer = _explainer(method, network, LAYERS[case["network"]], images, options, batch, command)
    if explainer is None:
        return None

    def explain():
        values = explainer(images, targets).numpy()
        return values[..., 0] if values.shape[-1] == 1 else values

    if method not in ("lime", "kernel_shap"):
        return explain
    first = np.unique(np.load(command["segments"]), return_index=True)[1]
    return lambda: explain().reshape(1, -1)[:, first]


def _slices_without_tuning(*args, **keywords):
    """Return a dataset whose loops end at once.

    The end of a loop over a dataset that tunes itself now and then waits for the tuning thread, which sleeps
    10 ms, then 20 and so on: a run of 7 seconds takes 10.2, one of 15 takes 20.5 or 41.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return _SLICES(*args, **keywords).with_options(options)


def _explainer(method, network, layer, images, options, batch, command):
    if method in _PIXELS:
        return _PIXELS[method](network, reducer=None, **batch)
    if method == "integrated_gradients":
        return attributions.IntegratedGradients(network, reducer=None, steps=options["steps"], **batch)
    if method in _NOISY:
        deviation = 0.15 * float(tf.reduce_max(images) - tf.reduce_min(images))
        return _NOISY[method](network, reducer=None, nb_samples=options["samples"], noise=deviation, **batch)
    if method in _CAMS:
        return _CAMS[method](network, conv_layer=layer, **batch)
    if method == "occlusion":
        window, stride = options["window"], options["stride"]
        return attributions.Occlusion(network, patch_size=window, patch_stride=stride, **batch)
    if method == "sobol":
        return attributions.SobolAttributionMethod(network, nb_design=options["designs"], **batch)
    if method == "hsic":
        return attributions.HsicAttributionMethod(network, nb_design=options["designs"], **batch)
    if method not in ("rise", "lime", "kernel_shap"):
        return None
    probabilities = models.Sequential([network, layers.Softmax()])
    samples = options["samples"]
    if method == "rise":
        return attributions.Rise(probabilities, nb_samples=samples, **batch)
    segments = tf.constant(np.load(command["segments"])[0], tf.int32)
    common = {"map_to_interpret_space": lambda image: segments, "ref_value": np.zeros(3), **batch}
    if samples >= 500:  # Its own default, all samples at once, is what it warns of here.
        common.setdefault("batch_size", 64)
    if method == "kernel_shap":
        return attributions.KernelShap(probabilities, nb_samples=samples, **common)
    masks = np.load(command["masks"])[:samples].astype(np.int32)
    return attributions.Lime(
        probabilities,
        interpretable_model=Ridge(alpha=1, fit_intercept=True),
        pertub_func=lambda features, samples: tf.constant(masks),
        similarity_kernel=_lime_kernel,
        nb_samples=samples,
        **common,
    )


def _lime_kernel(image, masks, perturbed):
    """Weigh masks as lime_image does: by the cosine distance of bits, with a width of a quarter."""
    share = tf.reduce_mean(tf.cast(masks, tf.float32), axis=1)
    return tf.exp(-((1 - tf.sqrt(share)) ** 2) / (2 * 0.25**2))


def _ascent(method, network, layer, steps):
    def explain():
        objective = features.Objective.channel(network, layer, 12)
        if method == "maco":
            image, _ = features.maco(objective, nb_steps=steps, values_range=(0, 1), custom_shape=(224, 224))
            return np.asarray(image)[None]
        images, _ = features.optimize(objective, nb_steps=steps, custom_shape=(224, 224))
        return images[-1].numpy()

    return explain
