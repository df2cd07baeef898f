"""A user's functions with the names of the library's layers change nothing, in any reader of programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai import rules
from jaxai._program.graph import graph_of
from jaxai.cam import _dense_head
from jaxai.features import _receptive
from jaxai.models import layers

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(2, 12, 12, 3)), jnp.float32)
FIRST, SECOND, THIRD = (
    jnp.asarray(RNG.normal(size=shape) / 2, jnp.float32) for shape in ((3, 3, 3, 4), (2, 1, 1, 4), (36, 5))
)


def conv(x, kernel):
    """Not linear, with a bias."""
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.tanh(y) + 0.5


def depthwise_conv(x, kernel):
    """A sum of shifted products, and a bias."""
    return x[:, 1:] * kernel[0] + x[:, :-1] * kernel[1] + 0.3


def max_pool(x):
    """A mean over strides."""
    return (x[:, ::2, ::2] + x[:, 1::2, 1::2]) * 0.5


def dense(x, kernel):
    """Not linear, with a bias."""
    return jax.nn.relu(x @ kernel + 0.2)


OPERATIONS = (conv, depthwise_conv, max_pool, dense)


def called(fn, name):
    def call(*args):
        return fn(*args)

    call.__name__ = call.__qualname__ = name
    return jax.jit(call)


def stages(names):
    first, second, pool, last = map(called, OPERATIONS, names)

    def features(first_kernel, second_kernel, x):
        x = jax.nn.relu(second(first(x, first_kernel), second_kernel))
        return checkpoint_name(pool(jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))), "features")

    def logits(kernel, x):
        return last(pool(x).reshape(len(x), -1), kernel)

    return {"features": Partial(features, FIRST, SECOND), "logits": Partial(logits, THIRD)}


def whole(net):
    return Partial(lambda net, x: net(x), net)


def heads(net):
    acts, head = jaxai.split(net, "features", IMAGES)
    found = _dense_head.find(head, acts)
    return found.before(acts), found.kernel, found.after(found.before(acts) @ found.kernel)


def named(net):
    found = jaxai.layers.named(whole(net), IMAGES)
    return jaxai.grad_cam(found, IMAGES, 1, layer="features")


def occlusion(net, incremental=True):
    return jaxai.occlusion(net, IMAGES, 1, window=3, strides=3, incremental=incremental)


def field(net):
    return _receptive.field(jax.make_jaxpr(lambda x: net(x, stop="features"))(IMAGES))


def loop_safe(net):
    return jax.grad(lambda x: rules.loop_safe(net)(x)[:, 1].sum())(IMAGES)


def redirected(net):
    return jax.grad(lambda x: rules.redirected_relu(net)(x)[:, 1].sum())(IMAGES)


READERS = {
    "full_gradients": lambda net: jax.tree.leaves(jaxai.full_gradients(net, IMAGES, 1)),
    "full_grad": lambda net: jaxai.full_grad(net, IMAGES, 1),
    "occlusion": occlusion,
    "lrp": lambda net: jaxai.lrp(net, IMAGES, 1),
    "lrp, gamma and box": lambda net: jaxai.lrp(
        net, IMAGES, 1, composite="epsilon_gamma_box", low=-3.0, high=3.0
    ),
    "excitation_backprop": lambda net: jaxai.excitation_backprop(net, IMAGES, 1),
    "report": lambda net: list(rules.report(net, IMAGES).operations.values()),
    "deep_lift": lambda net: jaxai.deep_lift(net, IMAGES, 1),
    "guided_backprop": lambda net: jaxai.guided_backprop(net, IMAGES, 1),
    "deconvnet": lambda net: jaxai.deconvnet(net, IMAGES, 1),
    "redirected_relu": redirected,
    "loop_safe": loop_safe,
    "receptive fields": field,
    "dense heads": heads,
    "named": named,
}
# Names of the library's layers now and before, of its marks, and of what JAX itself calls a ReLU.
NAMES = {
    "layers": ("conv", "depthwise_conv", "max_pool", "dense"),
    "marks": ("jaxai_layer", "jaxai/conv", "conv_general_dilated", "dot_general"),
    "others": ("relu", "relu6", "reduce_window_max", "_conv"),
}
PLAIN = ("first", "second", "third", "fourth")


@pytest.mark.sampled
@pytest.mark.parametrize("reader", READERS)
def test_names_of_user_functions_change_nothing(reader):
    expected = READERS[reader](jaxai.chain(stages(PLAIN)))
    kinds = NAMES.values() if reader in ("report", "receptive fields") else [NAMES["layers"]]
    for names in kinds:
        jax.tree.map(np.testing.assert_array_equal, READERS[reader](jaxai.chain(stages(names))), expected)


@pytest.mark.slow
def test_what_is_read_is_right():
    net = jaxai.chain(stages(NAMES["layers"]))
    total = sum(part.sum() for part in jax.tree.leaves(jaxai.full_gradients(net, IMAGES, 1)))
    np.testing.assert_allclose(total, net(IMAGES)[:, 1].sum(), rtol=1e-5)
    naive = occlusion(net, incremental=False)
    np.testing.assert_allclose(occlusion(net), naive, atol=1e-5 * float(jnp.abs(naive).max()))
    np.testing.assert_allclose(
        loop_safe(net), jax.grad(lambda x: net(x)[:, 1].sum())(IMAGES), rtol=1e-5, atol=1e-6
    )
    # Rows: 3 of the convolution, 2 of the shifted sum, 2 of the mean over strides.
    assert field(net) == (5, 4)
    features, kernel, scores = heads(net)
    assert features.shape == (2, 36) and kernel is not None
    np.testing.assert_allclose(scores, net(IMAGES), rtol=1e-5)


def only_node(fn, *args):
    (node,) = graph_of(jax.make_jaxpr(fn)(*args)).nodes
    return node


def test_the_librarys_layers_are_read_as_what_they_compute():
    """As the operation of JAX with the same values; what runs is the layer, with its own derivative."""
    x, kernel, shifts = IMAGES, FIRST, jnp.ones((2, 2, 1, 3))
    pads = ((1, 0), (0, 2))
    cases = [
        (lambda x, k: layers.conv(x, k, strides=(2, 1), padding=pads), (x, kernel), "conv_general_dilated"),
        (lambda x, k: layers.depthwise_conv(x, k, padding=pads), (x, shifts), "conv_general_dilated"),
        (lambda x: layers.max_pool(x, window=3), (x,), "reduce_window_max"),
        (lambda x: layers.max_pool(x), ((100 * x).astype(int),), "reduce_window_max"),
    ]
    for fn, args, name in cases:
        node = only_node(fn, *args)
        assert node.name == name and node.own
        plain = jax.make_jaxpr(lambda *xs, p=node.params, n=name: standard(n, p, *xs))(*args)
        (expected,) = jax.core.eval_jaxpr(plain.jaxpr, plain.consts, *args)
        np.testing.assert_allclose(node.run(*args)[0], expected, rtol=1e-5, atol=1e-5)
    assert only_node(cases[1][0], x, shifts).params["feature_group_count"] == 3


def standard(name, params, *args):
    if name == "conv_general_dilated":
        return lax.conv_general_dilated_p.bind(*args, **params)
    return lax.reduce_window_max_p.bind(*args, **params)


def test_layers_inside_of_other_transformations_are_no_layers():
    """Of a batch, differentiated, or inlined into a user's call whose operands are others."""

    @jax.jit
    def inlined(x, kernel):
        with jax.disable_jit():
            return layers.conv(x + 1, kernel)

    graphs = [
        graph_of(jax.make_jaxpr(jax.vmap(layers.conv, (0, None)))(IMAGES[None], FIRST)),
        graph_of(jax.make_jaxpr(lambda x: jax.jvp(lambda x: layers.conv(x, FIRST), (x,), (x,)))(IMAGES)),
        graph_of(jax.make_jaxpr(inlined)(IMAGES, FIRST)),
    ]
    for graph in graphs:
        assert not any(node.own for node in graph.nodes)
    assert [node.name for node in graphs[2].nodes] == ["add", "conv_general_dilated"]
