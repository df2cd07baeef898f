"""Layers of any layout: which axes are the image's is read from the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but
from every_method import METHODS

import jaxai
from jaxai import layers

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 8, 6, 3)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 3, 4)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
TOKENS = jnp.asarray(RNG.normal(size=(12, 4)), jnp.float32)


def conv(x, order):
    return jax.nn.relu(
        jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=(order, "HWIO", order))
    )


NHWC = {"conv": lambda x: conv(x, "NHWC"), "logits": lambda h: jnp.square(h).mean((1, 2)) @ HEAD}
NCHW = {
    "conv": lambda x: conv(jnp.moveaxis(x, -1, 1), "NCHW"),
    "logits": lambda h: jnp.square(h).mean((2, 3)) @ HEAD,
}
VMAPPED = {
    "conv": lambda x: jax.vmap(lambda i: conv(jnp.moveaxis(i, -1, 0)[None], "NCHW")[0])(x),
    "logits": NCHW["logits"],
}


@pytest.mark.parametrize("stages", [NCHW, VMAPPED], ids=["NCHW", "vmapped"])
@pytest.mark.parametrize("layer", [None, "conv"])
def test_channels_first_gives_the_map_of_channels_last(stages, layer):
    expected = jaxai.grad_cam(jaxai.chain(NHWC), X, 1)
    close(jaxai.grad_cam(jaxai.chain(stages), X, 1, layer=layer), expected)


CAMS = [name for name in jaxai.cam.__all__ if name in METHODS]
SECOND = jnp.asarray(RNG.normal(size=(3, 3, 4, 6)), jnp.float32)
LAST = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)


def two_layers(order):
    def second(h):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(h, SECOND, (1, 1), "SAME", dimension_numbers=(order, "HWIO", order))
        )

    first, places = (NHWC, (1, 2)) if order == "NHWC" else (NCHW, (2, 3))
    return jaxai.chain({"conv1": first["conv"], "conv2": second, "logits": lambda h: h.mean(places) @ LAST})


@pytest.mark.parametrize("name", slow_but("class_activation_map", CAMS))
def test_every_cam_of_channels_first_is_that_of_channels_last(name):
    close(METHODS[name](two_layers("NCHW"), X, 1), METHODS[name](two_layers("NHWC"), X, 1), 1e-4)


@pytest.mark.parametrize("name", CAMS)
def test_every_cam_refuses_what_is_not_laid_out_like_an_image(name):
    net = jaxai.chain(
        {
            "attention": lambda x: attention(x)[1],
            "volume": lambda a: a[..., None],
            "logits": lambda a: 9 * a[:, 0, 0, :5, 0] - 3,
        }
    )
    for layer in ("attention", "volume"):
        options = {"names": (layer,)} if name == "fused_cam" else {"layer": layer}
        with pytest.raises(ValueError, match=f"must have activations .*'{layer}' has shape"):
            METHODS[name](net, X, 1, **options)


def attention(x):
    patches = x.reshape(-1, 4, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12, 12)
    heads = (patches @ TOKENS).reshape(-1, 12, 2, 2).transpose(0, 2, 1, 3)
    return heads, jax.nn.softmax(heads @ heads.swapaxes(2, 3))


def test_attention_matrices_are_no_maps():
    net = jaxai.chain(
        {
            "grid": lambda x: x + 1,
            "attention": lambda x: attention(x)[1],
            "logits": lambda a: a[:, :, 0].sum(1),
        }
    )
    with pytest.raises(ValueError, match="'attention' has shape .*do not run along the images' height"):
        jaxai.grad_cam(net, X, 1, layer="attention")
    assert layers.resolve(net, None, X) == "grid"


def test_tokens_on_their_grid_and_transposed_images():
    def grid(x):
        heads, matrix = attention(x)
        return (matrix @ heads).transpose(0, 2, 1, 3).reshape(2, 12, 4).reshape(2, 4, 3, 4)

    net = jaxai.chain({"grid": grid, "logits": lambda h: h.mean((1, 2)) @ HEAD})
    assert layers.resolve(net, None, X) == "grid"
    turned = jaxai.chain({"turned": lambda x: x.swapaxes(1, 2), "logits": lambda h: h.mean((1, 2))})
    with pytest.raises(ValueError, match="'turned' has shape"):
        jaxai.grad_cam(turned, X, 1, layer="turned")


def test_images_with_channels_first_get_a_line():
    with pytest.raises(
        ValueError, match=r"shape \(2, 3, 32, 24\), which looks like \[batch, channels, height"
    ):
        jaxai.saliency(jaxai.chain(NHWC), jnp.ones((2, 3, 32, 24)), 1)


def features(name):
    """Feature visualizations of a network's layer "conv", small and without random transforms."""
    key, photos = jax.random.key(0), jax.nn.sigmoid(X)
    still = {"size": 8, "steps": 4, "transforms": None}
    return {
        "visualize": lambda net: jaxai.visualize(net, ["conv:1", "conv:3"], key=key, **still).images,
        "measure": lambda net: jaxai.features.measure(net, ["conv:1", "logits:2"], photos),
        "deep_dream": lambda net: jaxai.deep_dream(
            net, photos, layer="conv", key=key, octaves=2, steps=2, jitter=1, guide=photos[:1]
        ),
        "layer_activations": lambda net: jaxai.features.layer_activations(net, photos, layer="conv"),
        "atlas": lambda net: (
            jaxai.atlas(net, photos, layer="conv", key=key, grid=2, least=1, **still).directions
        ),
    }[name]


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["visualize", "measure", "deep_dream", "layer_activations", "atlas"])
@pytest.mark.slow
def test_features_of_channels_first_are_those_of_channels_last(name):
    run = features(name)
    close(run(jaxai.chain(NCHW)), run(jaxai.chain(NHWC)), 1e-3)


def test_an_atlas_of_attention_matrices_is_refused():
    net = jaxai.chain({"attention": lambda x: attention(x)[1], "logits": lambda a: a[:, :, 0].sum(1)})
    for draw in (
        lambda **options: jaxai.atlas(net, jax.nn.sigmoid(X), **options),
        lambda **options: jaxai.features.semantic_dictionary(net, jax.nn.sigmoid(X[0]), **options),
    ):
        with pytest.raises(ValueError, match="'attention' has shape .*do not run along the images' height"):
            draw(layer="attention", key=jax.random.key(0))
