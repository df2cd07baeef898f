"""Softmaxes: at the end of a network relevance starts from the logits, inside it a rule of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import jaxai
from jaxai import rules

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


IMAGES, WEIGHTS, HEAD = normal(2, 4, 4, 3), normal(3, 8), normal(8, 5)
EXACT = rules.Composite(dense=rules.Epsilon(1e-9), pool=rules.Norm(1e-9), residual=rules.Norm(1e-9))
VALID = jnp.array([True, True, False, True, True])


def logits(x):
    return jax.nn.relu(x @ WEIGHTS).mean((1, 2)) @ HEAD


def by_hand(z):
    return jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True)


HEADS = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "logsumexp": lambda z: z - jax.nn.logsumexp(z, -1, keepdims=True),
    "logarithm": lambda z: jnp.log(jax.nn.softmax(z) + 1e-9),
    "by hand": by_hand,
    "smoothed": lambda z: 0.9 * jax.nn.softmax(z) + 0.02,
    "first axis": lambda z: jax.nn.softmax(z.T, axis=0).T,
    "one class masked": lambda z: jax.nn.softmax(z, where=VALID),
    "masked by infinity": lambda z: jax.nn.softmax(jnp.where(VALID, z, -jnp.inf)),
    "a class left out": lambda z: jax.nn.softmax(jnp.concatenate([z, z[:, :1]], 1))[:, :5],
}
CLASSES = jnp.array([[0, 1, 3, 4]] * 2)


STARTS = ("one_hot", "score")


@pytest.fixture(scope="module")
def explained():
    """LRP of the logits and through every head, from both starts, compiled together."""

    def explain(images):
        def both(net):
            return [jaxai.lrp(net, images, CLASSES, composite=EXACT, relevance=start) for start in STARTS]

        return [both(logits), *(both(lambda x, h=head: h(logits(x))) for head in HEADS.values())]

    return jax.jit(explain)(IMAGES)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", HEADS)
def test_every_class_is_explained_by_its_logit(explained, name, start):
    expected, *others = (each[STARTS.index(start)] for each in explained)
    ours = others[list(HEADS).index(name)]
    close(ours, expected)
    total = jnp.take_along_axis(logits(IMAGES), CLASSES, 1) if start == "score" else 1.0
    np.testing.assert_allclose(ours.sum((2, 3, 4)) / total, 1, atol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "first axis"])
def test_callable_targets_are_functions_of_the_logits(name):
    head = HEADS[name]
    for start in ("one_hot", "score"):
        options = dict(composite=EXACT, relevance=start)
        ours = jaxai.lrp(lambda x: head(logits(x)), IMAGES, lambda p: p[:, 1] - p[:, 2], **options)
        expected = jaxai.lrp(logits, IMAGES, lambda z: head(z)[:, 1] - head(z)[:, 2], **options)
        close(ours, expected)


def test_excitation_and_default_targets():
    for method in (jaxai.lrp, jaxai.excitation_backprop):
        close(method(lambda x: jax.nn.softmax(logits(x)), IMAGES), method(logits, IMAGES))


def test_a_sigmoid_passes_relevance():
    ours = jaxai.lrp(lambda x: jax.nn.sigmoid(logits(x)), IMAGES, 1, composite=EXACT)
    close(ours, jaxai.lrp(logits, IMAGES, 1, composite=EXACT))


def test_the_rule_of_a_softmax_inside():
    # R_i = x_i (R_i - s_i sum_j R_j), by hand.
    def net(x):
        return jax.nn.softmax(x.reshape(1, 3)) @ jnp.array([[1.0], [2.0], [4.0]])

    x = np.array([0.5, -1.0, 2.0])
    s = np.exp(x) / np.exp(x).sum()
    above = s * np.array([1.0, 2.0, 4.0])
    images = jnp.asarray(x, jnp.float32).reshape(1, 1, 3, 1)
    taylor = rules.Composite(dense=rules.Epsilon(0.0), softmax=rules.Softmax())
    ours = jaxai.lrp(net, images, 0, composite=taylor, relevance="score", strict=True)
    np.testing.assert_allclose(ours.ravel(), x * (above - s * above.sum()), rtol=1e-5)
    # By default it passes relevance on, as other activations do.
    ours = jaxai.lrp(net, images, 0, composite=rules.Composite(dense=rules.Epsilon(0.0)), relevance="score")
    np.testing.assert_allclose(ours.ravel(), above, rtol=1e-5)


def test_a_max_that_is_subtracted_elsewhere_keeps_its_share():
    # No softmax: x less its maximum, from which the derivative stops, shares by contribution.
    def net(x):
        y = x.reshape(1, 3)
        return (y - jax.lax.stop_gradient(y.max(-1, keepdims=True))) @ jnp.array([[1.0], [2.0], [0.0]])

    images = jnp.array([1.0, -2.0, 3.0]).reshape(1, 1, 3, 1)
    ours = jaxai.lrp(net, images, 0, composite=EXACT, relevance="score", strict=True)
    np.testing.assert_allclose(ours.ravel(), [1.0, -4.0, -9.0], rtol=1e-5)
