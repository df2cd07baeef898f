"""Receptive fields: read off programs, against the support of real gradients and known numbers."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.features import _receptive
from jaxai.features._visualize import SmallImageWarning
from jaxai.models.layers import conv, depthwise_conv, max_pool

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUICK = {"key": jax.random.key(0), "steps": 1, "transforms": None, "redirect": 0, "parametrization": "pixels"}


def field_of(fn, shape=(1, 40, 50, 3)):
    return _receptive.field(jax.make_jaxpr(fn)(jax.ShapeDtypeStruct(shape, jnp.float32)))


def support(fn, shape=(1, 40, 50, 3)):
    """Return how many rows and columns have a gradient from the unit in the middle."""
    x = jnp.asarray(np.random.default_rng(1).uniform(size=shape), jnp.float32)
    middle = tuple(n // 2 for n in jax.eval_shape(fn, x).shape[1:3])
    gradient = np.abs(jax.grad(lambda x: fn(x)[0, middle[0], middle[1]].sum())(x))[0].max(-1)
    lines = np.flatnonzero(gradient.max(1)), np.flatnonzero(gradient.max(0))
    return tuple(int(line[-1] - line[0] + 1) for line in lines)


IMAGES = jnp.ones((1, 12, 12, 3))


def kernel(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def plain(weights, x, stride=(1, 1), padding="SAME", dilation=(1, 1), numbers=("NHWC", "HWIO", "NHWC")):
    return jax.lax.conv_general_dilated(
        x, weights, stride, padding, rhs_dilation=dilation, dimension_numbers=numbers
    )


def window(x, size):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, size, 1, 1), (1, 2, 1, 1), "SAME")


def channels_first(x):
    x = plain(kernel(4, 3, 5, 3), x.transpose(0, 3, 1, 2), numbers=("NCHW", "OIHW", "NCHW"))
    return x.transpose(0, 2, 3, 1) @ kernel(4, 6)


def excited(x):
    return x * jax.nn.sigmoid(plain(kernel(3, 3, 3, 3), x).mean((1, 2), keepdims=True))


CASES = {
    "convolution": lambda x: jax.nn.relu(plain(kernel(3, 5, 3, 4), x) + 1),
    "stride": lambda x: plain(kernel(3, 3, 4, 4), plain(kernel(5, 5, 3, 4), x, (2, 2)), (2, 1), "VALID"),
    "dilation": lambda x: plain(kernel(3, 3, 3, 4), x, dilation=(2, 3)),
    "ports": lambda x: conv(max_pool(conv(x, kernel(3, 3, 3, 4))), kernel(3, 3, 4, 4)),
    "depthwise": lambda x: depthwise_conv(conv(x, kernel(3, 3, 3, 4)), kernel(5, 5, 1, 4), strides=(2, 2)),
    "residual": lambda x: x + plain(kernel(5, 5, 3, 3), plain(kernel(3, 3, 3, 3), x)),
    "window": lambda x: window(window(x, 3), 2),
    "pad and slice": lambda x: plain(
        kernel(3, 3, 3, 4), jnp.pad(x, ((0, 0), (4, 0), (3, 3), (0, 0)))[:, ::2]
    ),
    "channels first": channels_first,
    "concatenation": lambda x: jnp.concatenate([x, plain(kernel(7, 3, 3, 2), x)], -1),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_fields_are_the_support_of_the_gradient(name):
    assert field_of(CASES[name]) == support(CASES[name])


def test_marks_and_exact_functions_change_nothing():
    """Marks of layers, exact GELU and all other functions of one number see what they are given."""
    k = kernel(3, 3, 3, 4)
    seen = field_of(lambda x: plain(k, x))
    assert seen == (3, 3)
    others = [jnp.floor, jnp.sinh, jnp.cbrt, jax.scipy.special.erfc, lambda x: jax.lax.stop_gradient(x) + x]
    for fn in (lambda x: checkpoint_name(x, "layer"), lambda x: jax.nn.gelu(x, approximate=False), *others):
        assert field_of(lambda x, fn=fn: fn(plain(k, x))) == seen
    model = jaxai.layers.named(lambda x: checkpoint_name(jax.nn.relu(plain(k, x)), "f").mean((1, 2)), IMAGES)
    assert field_of(lambda x: model.split("f", x)[0]) == seen


def test_fields_go_through_reshapes_loops_and_groups():
    k = kernel(3, 3, 4, 4)

    def grouped(x):
        x = plain(kernel(3, 3, 3, 4), x)
        groups = x.reshape(*x.shape[:3], 2, 2)
        return (groups / groups.std((1, 2, 4), keepdims=True)).reshape(x.shape)

    def looped(x):
        return jax.lax.scan(lambda x, k: (jax.nn.relu(plain(k, x)), None), grouped(x), jnp.stack([k, k]))[0]

    assert field_of(grouped) == (3, 3)
    assert field_of(looped) == (7, 7)
    assert field_of(lambda x: jnp.stack(jnp.split(plain(k, grouped(x)), 2, -1), -1)) == (5, 5)


def test_paths_that_see_everything_do_not_count_and_unknown_ones_say_so():
    assert field_of(excited) == (1, 1)
    assert field_of(lambda x: x.mean((1, 2))) is None
    assert field_of(lambda x: jnp.sort(x, 1)) is None
    assert field_of(lambda x: jnp.ones((1, 3, 3, 2))) is None


def test_fields_of_vgg16_are_the_known_ones():
    vgg = jaxai.models.load("vgg16_features").model
    known = {
        "conv1_2": 5,
        "pool1": 6,
        "conv2_2": 14,
        "conv3_3": 40,
        "conv4_3": 92,
        "conv5_3": 196,
        "pool5": 212,
    }
    x = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    for layer, side in known.items():
        program = jax.make_jaxpr(lambda m, x, layer=layer: m(x, stop=layer))(vgg, x)
        assert _receptive.field(program) == (side, side)


@pytest.mark.slow
def test_small_images_warn():
    def layer(weights, x):
        return jax.nn.relu(plain(weights, x))

    net = jaxai.chain({"a": Partial(layer, kernel(5, 3, 3, 4)), "b": Partial(layer, kernel(5, 3, 4, 4))})
    with pytest.warns(SmallImageWarning, match="8 x 8 pixels are smaller than .* 'b' sees, 9 x 5 pixels"):
        jaxai.visualize(net, "b:1", size=8, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.visualize(net, "b:1", size=(9, 5), **QUICK)
        # Photos are as large as they are, and icons are meant to be small.
        photo = jnp.linspace(0, 1, 192).reshape(1, 8, 8, 3)
        options = {name: QUICK[name] for name in ("key", "steps", "parametrization")}
        jaxai.invert(net, photo, layer="b", **options)
