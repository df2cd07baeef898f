"""jaxai's side: every row through the public functions alone."""

import os

import numpy as np

import jaxai

PACKAGES = ("jax", "jaxlib", "flax", "jaxai-explain")
if os.environ.get("JAXAI_BENCHMARK_DEVICE", "cpu") == "cpu":
    jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from . import networks, ours_white_box  # noqa: E402

LAYERS = {"efficientnet_lite0": "conv_head", "vgg16": "conv5_3"}
_models: dict = {}


def about():
    """Return what the table says of this side."""
    return {"device": jax.devices()[0].device_kind, "flags": os.environ.get("XLA_FLAGS", "")}


def model_of(command):
    """Return the network of a command in its precision, with the weights that both sides read."""
    name, precision = command["case"]["network"], command["precision"]
    if (name, precision) not in _models:
        model = networks.read(name, command["weights"])
        _models[name, precision] = jax.tree.map(
            lambda leaf: leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, model
        )
    return _models[name, precision]


def prepare(command):
    """Return a function without arguments that explains and waits, or None where there is no such method."""
    case, model = command["case"], model_of(command)
    name = case["network"]
    images = jnp.asarray(np.load(command["images"])[: case["batch"]], command["precision"])
    classes = np.load(command["classes"])[: case["batch"]]
    run = _RUNS.get(case["method"])
    if run is None:
        return None
    call = run(model, images, jnp.asarray(classes), case["options"], LAYERS[name], command)
    return lambda: np.asarray(call(), np.float32)


def _forward(model, images, classes, options, layer, command):
    forward = jax.jit(lambda model, x: model(x))
    return lambda: forward(model, images)


def _grad_cam(model, images, classes, options, layer, command):
    count = options.get("targets")
    if count:
        classes = jnp.argsort(-model(images), axis=1)[:, :count]
    return lambda: jaxai.grad_cam(model, images, classes, layer=layer)


def _segments(command):
    return jnp.asarray(np.load(command["segments"]))


def _lime(model, images, classes, options, layer, command):
    segments = _segments(command)
    masks = jnp.asarray(np.load(command["masks"])[: options["samples"]])
    return lambda: jaxai.lime(model, images, classes, segments=segments, masks=masks).weights


def _kernel_shap(model, images, classes, options, layer, command):
    segments = _segments(command)
    key = jax.random.key(0)
    return lambda: (
        jaxai.kernel_shap(
            model, images, classes, segments=segments, key=key, num_samples=options["samples"], fill=0.0
        ).values
    )


def _visualize(model, images, classes, options, layer, command):
    key = jax.random.key(0)
    return lambda: (
        jaxai.visualize(
            model, f"{layer}:12", key=key, size=224, steps=options["steps"], normalize=_imagenet
        ).images
    )


def _maco(model, images, classes, options, layer, command):
    key, steps = jax.random.key(0), options["steps"]
    return lambda: (
        jaxai.maco(model, f"{layer}:12", key=key, size=224, steps=steps, normalize=_imagenet).images
    )


def _imagenet(x):
    mean, deviation = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
    return (x - mean) / deviation


def _deep_dream(model, images, classes, options, layer, command):
    key = jax.random.key(0)
    photos = jnp.clip(0.5 + 0.2 * images.astype(jnp.float32), 0, 1)
    return lambda: jaxai.deep_dream(
        model, photos, layer=layer, key=key, normalize=_imagenet, octaves=2, steps=options["steps"]
    )


_RUNS = {
    **ours_white_box.RUNS,
    "forward": _forward,
    "saliency": lambda m, x, t, o, layer, c: lambda: jaxai.saliency(m, x, t),
    "grad_cam": _grad_cam,
    "integrated_gradients": lambda m, x, t, o, layer, c: (
        lambda: jaxai.integrated_gradients(m, x, t, steps=o["steps"])
    ),
    "smooth_grad": lambda m, x, t, o, layer, c: (
        lambda: jaxai.smooth_grad(m, x, t, key=jax.random.key(0), num_samples=o["samples"])
    ),
    "ablation_cam": lambda m, x, t, o, layer, c: lambda: jaxai.ablation_cam(m, x, t, layer=layer),
    "score_cam": lambda m, x, t, o, layer, c: lambda: jaxai.score_cam(m, x, t, layer=layer),
    "occlusion": lambda m, x, t, o, layer, c: (
        lambda: jaxai.occlusion(m, x, t, window=(o["window"],) * 2, strides=(o["stride"],) * 2)
    ),
    "lime": _lime,
    "kernel_shap": _kernel_shap,
    "rise": lambda m, x, t, o, layer, c: (
        lambda: jaxai.rise(m, x, t, key=jax.random.key(0), num_masks=o["samples"])
    ),
    "sobol": lambda m, x, t, o, layer, c: lambda: jaxai.sobol(m, x, t, num_designs=o["designs"]),
    "hsic": lambda m, x, t, o, layer, c: lambda: jaxai.hsic(m, x, t, num_designs=o["designs"]),
    "visualize": _visualize,
    "maco": _maco,
    "deep_dream": _deep_dream,
}
