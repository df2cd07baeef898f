"""VGG16 and EfficientNet-Lite0 in Keras on TensorFlow, with the same weights, batch norms folded in."""

import os

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from safetensors.numpy import load_file

from .architectures import LITE_BLOCKS, VGG_BLOCKS

THREADS = int(os.environ["OMP_NUM_THREADS"])
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
if os.environ.get("JAXAI_BENCHMARK_DEVICE") == "gpu":
    tf.config.experimental.enable_tensor_float_32_execution("JAXAI_BENCHMARK_TF32" in os.environ)

# What Grad-CAM looks at: the activation after the last convolution.
LAYERS = {"vgg16": "conv5_3", "efficientnet_lite0": "conv_head_relu"}


def _relu6(name):
    return layers.ReLU(6.0, name=f"{name}_relu")


def vgg16(arrays):
    """Return VGG16, layer by layer as `keras.applications` has it; its output is the logits."""
    x = start = keras.Input((224, 224, 3))
    for block, count in enumerate(VGG_BLOCKS, start=1):
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            filters = arrays[f"{name}.kernel"].shape[3]
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.Flatten()(x)
    for name, activation in (("fc6", "relu"), ("fc7", "relu"), ("logits", None)):
        x = layers.Dense(arrays[f"{name}.bias"].size, activation=activation, name=name)(x)
    return keras.Model(start, x)


def _block(x, arrays, name, window, stride):
    """Apply a mobile inverted bottleneck."""
    inside = x
    if f"{name}.expand.kernel" in arrays:
        filters = arrays[f"{name}.expand.kernel"].shape[3]
        inside = _relu6(f"{name}.expand")(layers.Conv2D(filters, 1, name=f"{name}.expand")(inside))
    depthwise = layers.DepthwiseConv2D(window, stride, padding="same", name=f"{name}.depthwise")
    inside = _relu6(f"{name}.depthwise")(depthwise(inside))
    filters = arrays[f"{name}.project.kernel"].shape[3]
    inside = layers.Conv2D(filters, 1, name=f"{name}.project")(inside)
    return layers.Add()([x, inside]) if stride == 1 and x.shape[3] == filters else inside


def efficientnet_lite0(arrays):
    """Return EfficientNet-Lite0; its output is the logits."""
    start = keras.Input((224, 224, 3))
    x = _relu6("stem")(layers.Conv2D(32, 3, 2, padding="same", name="stem")(start))
    for name, window, stride in LITE_BLOCKS:
        x = _block(x, arrays, f"block{name}", window, stride)
    x = _relu6("conv_head")(layers.Conv2D(1280, 1, name="conv_head")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(start, layers.Dense(arrays["logits.bias"].size, name="logits")(x))


_BUILDERS = {"vgg16": vgg16, "efficientnet_lite0": efficientnet_lite0}
_loaded: dict = {}


def load(command):
    """Return the network of a command, its images and the one-hot rows of its classes."""
    name = command["case"]["network"]
    if name not in _loaded:
        _loaded.clear()
        arrays = load_file(command["weights"])
        network = _BUILDERS[name](arrays)
        for layer in network.layers:
            if not layer.weights:
                continue
            kernel = arrays[f"{layer.name}.kernel"]
            if isinstance(layer, layers.DepthwiseConv2D):
                kernel = kernel.transpose(0, 1, 3, 2)
            layer.set_weights([kernel, arrays[f"{layer.name}.bias"]])
        _loaded[name] = network
    network = _loaded[name]
    batch = command["case"]["batch"]
    images = tf.constant(np.load(command["images"])[:batch])
    classes = np.load(command["classes"])[:batch]
    return network, images, tf.one_hot(classes, network.output.shape[1])


def about():
    """Return what the table says of a TensorFlow side."""
    kinds = {device.device_type.lower() for device in tf.config.list_physical_devices()}
    return {"device": "gpu" if "gpu" in kinds else "cpu", "threads": THREADS}
