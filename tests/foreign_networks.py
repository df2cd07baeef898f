"""Networks of other packages as these ship them, what a user writes around them, and sums within their calls.

Each function returns a `Network`, or skips where its package is not installed.
"""

import contextlib
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

CLASSES = 10


class Network(NamedTuple):
    model: Any
    images: jax.Array
    # The same network without anything that adds a constant.
    bias_free: Any
    # Layers, and the scores with sums added to the results of those within the library's own call.
    layers: tuple[str, ...]
    plus: Callable[[dict[str, jax.Array], jax.Array], jax.Array]


def pictures(side=96, channels=3):
    """Large enough for three positions a side after five halvings: XLA convolves fewer slowly."""
    return jax.random.normal(jax.random.key(0), (2, side, side, channels))


_ADDS = re.compile(r"bias|beta|^b$|offset|mean|average|cls_token|reg_tokens|posi?t?i?o?n?_embed", re.I)


def _randomized(path, leaf):
    """Return a vector with noise: norms and biases are all alike before training."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating) or max(leaf.shape, default=0) != leaf.size:
        return leaf
    key = jax.random.fold_in(jax.random.key(1), sum(map(ord, path)))
    return leaf + 0.3 * jax.random.uniform(key, leaf.shape, leaf.dtype)


def _without(path, leaf):
    last = path.removesuffix("/value").rsplit("/", 1)[-1]
    adds = _ADDS.search(last) or "pos_embed" in path
    return jnp.zeros_like(leaf) if adds and "ids" not in last else leaf


def _mapped(function, tree):
    """Map over the arrays of a tree with their paths."""

    def one(path, leaf):
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(one, tree)


# Keras


def keras_application(name, layers, *, scale=1.0, calibrated=False, **options):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras does not run on JAX here")
    keras.utils.set_random_seed(0)
    images = scale * pictures()
    net = getattr(keras.applications, name)(
        weights=None,
        input_shape=images.shape[1:],
        classes=CLASSES,
        classifier_activation=None,
        **options,
    )
    for variable in net.variables:
        variable.assign(_randomized(variable.path, variable.value))
    if calibrated:
        # Without statistics of images, deep networks of narrow blocks return next to nothing.
        for layer in net.layers:
            if hasattr(layer, "momentum"):
                layer.momentum = 0.0
        groups = [
            [v.value for v in group] for group in (net.trainable_variables, net.non_trainable_variables)
        ]
        _, state = jax.jit(partial(net.stateless_call, training=True))(*groups, images)
        for variable, value in zip(net.non_trainable_variables, state, strict=True):
            variable.assign(value)

    def bias_free(groups, images):
        return net.stateless_call(*groups, images, training=False)[0]

    groups = [
        [_without(v.path, v.value) for v in group]
        for group in (net.trainable_variables, net.non_trainable_variables)
    ]

    def plus(deltas, images):
        calls = {layer: net.get_layer(layer).call for layer in deltas}

        def added(layer, *args, **keywords):
            return calls[layer](*args, **keywords) + deltas[layer]

        try:
            for layer in deltas:
                net.get_layer(layer).call = partial(added, layer)
            return net(images)
        finally:
            for layer, call in calls.items():
                net.get_layer(layer).call = call

    return Network(net, images, Partial(bias_free, groups), layers, plus)


@contextlib.contextmanager
def doubled():
    """Keras' networks of float64."""
    keras = pytest.importorskip("keras")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        with jax.enable_x64(True):
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def keras_vgg16():
    return keras_application("VGG16", ("block1_conv2", "block3_pool", "block5_conv3"))


def keras_resnet50():
    return keras_application("ResNet50", ("conv2_block1_2_relu", "conv3_block2_add", "conv4_block3_out"))


def keras_mobilenet_v2():
    return keras_application(
        "MobileNetV2", ("block_1_depthwise", "block_5_add", "block_12_project_BN"), calibrated=True
    )


def keras_efficientnet_b0():
    layers = ("block2a_expand_activation", "block3b_add", "block5a_project_conv")
    return keras_application("EfficientNetB0", layers, scale=50, calibrated=True)


def keras_convnext_tiny():
    layers = (
        "convnext_tiny_stage_0_block_1_depthwise_conv",
        "convnext_tiny_stage_1_block_0_pointwise_conv_2",
        "convnext_tiny_stage_2_block_3_layernorm",
    )
    return keras_application("ConvNeXtTiny", layers, include_preprocessing=False)


# Flax Linen


def _linen(init, apply, layers, **size):
    linen = pytest.importorskip("flax.linen")
    images = pictures(**size)
    variables = _mapped(_randomized, jax.jit(init)(jax.random.key(0), images))

    def plus(deltas, images):
        def add(function, args, keywords, context):
            out = function(*args, **keywords)
            delta = deltas.get("/".join(context.module.path))
            return out + delta if delta is not None and context.method_name == "__call__" else out

        with linen.intercept_methods(add):
            return apply(variables, images)

    bias_free = Partial(apply, _mapped(_without, variables))
    return Network(Partial(apply, variables), images, bias_free, layers, plus)


def _flaxmodels(name, layers, **size):
    net = getattr(pytest.importorskip("flaxmodels"), name)(
        output="logits", pretrained=None, num_classes=CLASSES, normalize=False
    )
    return _linen(
        lambda key, x: net.init(key, x, train=False),
        lambda variables, x: net.apply(variables, x, train=False),
        layers,
        **size,
    )


def linen_flaxmodels_resnet18():
    return _flaxmodels("ResNet18", ("Conv_0", "BasicBlock_2/BatchNorm_1", "BasicBlock_5"))


def linen_flaxmodels_vgg16():
    """Its head takes images of 224 pixels only, and reads what it flattens with channels first."""
    return _flaxmodels("VGG16", ("conv1_2", "conv3_3", "conv5_1"), side=224)


def linen_jax_resnet18():
    jax_resnet = pytest.importorskip("jax_resnet", exc_type=ImportError)
    net = jax_resnet.ResNet18(n_classes=CLASSES)
    return _linen(
        net.init,
        lambda variables, x: net.apply(variables, x, mutable=False),
        ("layers_0", "layers_4", "layers_8"),
    )


# Haiku


def haiku_resnet18():
    hk = pytest.importorskip("haiku")
    images = pictures()
    net = hk.without_apply_rng(
        hk.transform_with_state(lambda x, training=False: hk.nets.ResNet18(CLASSES)(x, training))
    )
    params, state = jax.jit(lambda key, x: net.init(key, x, True))(jax.random.key(0), images)
    # The last matrix is zero, too.
    params = jax.tree.map(
        lambda w: w + 0.05 * jax.random.normal(jax.random.key(w.size), w.shape), _mapped(_randomized, params)
    )
    # Statistics are zero before the first images.
    _, state = jax.jit(lambda *variables: net.apply(*variables, True))(params, state, images)

    def apply(variables, images):
        return net.apply(*variables, images)[0]

    def plus(deltas, images):
        def add(function, args, keywords, context):
            out = function(*args, **keywords)
            delta = deltas.get(context.module.module_name)
            return out + delta if delta is not None and context.method_name == "__call__" else out

        with hk.intercept_methods(add):
            return apply((params, state), images)

    bias_free = (
        _mapped(_without, params),
        _mapped(lambda path, leaf: jnp.zeros_like(leaf) if "mean_ema" in path else leaf, state),
    )
    groups = "res_net18/~/block_group_{}/~/block_{}"
    layers = ("res_net18/~/initial_conv", groups.format(1, 0) + "/~/batchnorm_1", groups.format(2, 1))
    return Network(Partial(apply, (params, state)), images, Partial(apply, bias_free), layers, plus)


# Flax NNX


def _jimm():
    """Skip without jax-image-models; another package has its name, too."""
    pytest.importorskip("jimm.models.vit", exc_type=ImportError)
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    jax.set_mesh(jax.make_mesh((1, 1), ("fsdp", "model"), axis_types=kinds))


def _nnx(net, images, apply, layers):
    from flax import nnx

    net.eval()
    net = _mapped(_randomized, net)

    class Plus(nnx.Module):
        def __init__(self, inner, delta):
            self.inner, self.delta = inner, nnx.Param(delta)

        def __call__(self, *args, **keywords):
            return self.inner(*args, **keywords) + self.delta[...]

    def plus(deltas, images):
        copy = jax.tree.map(lambda leaf: leaf, net)
        for layer, delta in deltas.items():
            *parents, last = layer.split(".")
            parent = copy
            for name in parents:
                parent = getattr(parent, name)
            if "/[" not in last:
                setattr(parent, last, Plus(getattr(parent, last), delta))

        def by_hand(x, blocks):
            for step in range(len(jax.tree.leaves(blocks)[0])):
                x = jax.tree.map(lambda leaf, step=step: leaf[step], blocks)(x)
                x = x + sum(delta for layer, delta in deltas.items() if layer.endswith(f"/[{step}]"))
            return x

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jimm.common.vit.scan_forward", by_hand)
            return apply(copy, images)

    bias_free = Partial(apply, _mapped(_without, net))
    return Network(Partial(apply, net), images, bias_free, layers, plus)


def nnx_jimm_vit():
    _jimm()
    from flax import nnx
    from jimm.models.vit import VisionTransformer

    net = VisionTransformer(
        num_classes=CLASSES,
        img_size=64,
        patch_size=16,
        num_layers=3,
        num_heads=4,
        mlp_dim=128,
        hidden_size=64,
        rngs=nnx.Rngs(0),
    )
    layers = ("encoder.patch_embeddings", "encoder.dropout", "encoder.layers/[1]")
    return _nnx(net, pictures(64), lambda net, x: net(x), layers)


def nnx_jimm_clip():
    _jimm()
    from flax import nnx
    from jimm.models.clip import CLIP

    net = CLIP(
        image_resolution=64,
        vision_layers=3,
        vision_hidden_size=64,
        vision_patch_size=16,
        context_length=8,
        vocab_size=50,
        text_hidden_size=64,
        num_text_heads=1,
        num_text_layers=2,
        rngs=nnx.Rngs(0),
    )
    tokens = jnp.arange(24).reshape(3, 8) % 50
    names = ("patch_embeddings", "ln_pre", "layers/[1]")
    layers = tuple(f"vision_model.encoder.{name}" for name in names)
    return _nnx(net, pictures(64), lambda net, x: net(x, tokens), layers)


# Equinox


def _equinox(net, images, layers, **options):
    eqx = pytest.importorskip("equinox")
    arrays, static = eqx.partition(net, eqx.is_array)

    class Plus(eqx.Module):
        inner: Any
        delta: Any

        def __call__(self, *args, **keywords):
            return self.inner(*args, **keywords) + self.delta

        def __getattr__(self, name):
            return getattr(object.__getattribute__(self, "inner"), name)

    def apply(net, images):
        return jax.vmap(lambda image: net(image, **options))(jnp.moveaxis(images, -1, 1))

    def where(layer, net):
        for name in layer.split("."):
            net = net[int(name)] if name.isdigit() else getattr(net, name)
        return net

    def plus(deltas, images):
        def one(image, deltas):
            changed = full
            for layer, delta in deltas.items():
                added = Plus(where(layer, full), delta)
                changed = eqx.tree_at(partial(where, layer), changed, added)
            return changed(image, **options)

        return jax.vmap(one)(jnp.moveaxis(images, -1, 1), deltas)

    full = eqx.combine(_mapped(_randomized, arrays), static)
    bias_free = eqx.combine(_mapped(_without, _mapped(_randomized, arrays)), static)
    return Network(Partial(apply, full), images, Partial(apply, bias_free), layers, plus)


def equinox_equimo_vit():
    module = pytest.importorskip("equimo.models.vit", exc_type=ImportError)
    net = module.VisionTransformer(
        img_size=64,
        in_channels=3,
        dim=64,
        patch_size=16,
        num_heads=4,
        depths=[3],
        num_classes=CLASSES,
        key=jax.random.key(0),
    )
    layers = ("patch_embed", "blocks.0.blocks.0.attn", "blocks.0.blocks.1.mlp")
    return _equinox(net, pictures(64), layers, inference=True)


def equinox_equimo_convnext():
    module = pytest.importorskip("equimo.models.convnext", exc_type=ImportError)
    net = module.ConvNeXt(
        in_channels=3, depths=[1, 1, 2, 1], dims=[16, 32, 64, 64], num_classes=CLASSES, key=jax.random.key(0)
    )
    layers = ("blocks.0.downsample.norm", "blocks.1.blocks.0.pwconv2", "blocks.2.blocks.1.dwconv")
    return _equinox(net, pictures(), layers, inference=True)


def equinox_layers():
    """Equinox's own layers, as in its example, for images of five channels."""
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 3)
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(5, 8, 3, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Conv2d(8, 12, 3, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(12, CLASSES, key=keys[2]),
        ]
    )
    return _equinox(net, pictures(32, 5), ("layers.0", "layers.2", "layers.3"))


NETWORKS = {
    function.__name__: function
    for function in (
        keras_vgg16,
        keras_resnet50,
        keras_mobilenet_v2,
        keras_efficientnet_b0,
        keras_convnext_tiny,
        linen_flaxmodels_resnet18,
        linen_flaxmodels_vgg16,
        linen_jax_resnet18,
        haiku_resnet18,
        nnx_jimm_vit,
        nnx_jimm_clip,
        equinox_equimo_vit,
        equinox_equimo_convnext,
        equinox_layers,
    )
}
