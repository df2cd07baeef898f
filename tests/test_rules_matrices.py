"""Rules of relevance against the matrices of their layers, in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import conv
from jax.tree_util import Partial

import jaxai
from jaxai import rules

RNG = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


def matrix(linear, shape):
    """Return the matrix of a linear function of one image, [inputs, outputs] in float64."""
    basis = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(linear(basis), np.float64).reshape(len(basis), -1)


def stable(z, epsilon):
    return z + epsilon * np.where(z >= 0, 1, -1)


def up(a):
    return np.maximum(a, 0)


def down(a):
    return np.minimum(a, 0)


def share(parts, bias, r, epsilon):
    """Share r [outputs] by parts [inputs, outputs], with a bias in the denominator."""
    return (parts * (r / stable(parts.sum(0) + bias, epsilon))).sum(1)


def by_matrix(rule, w, x, b, r, low=None, high=None):
    """Return each rule's relevance for one image x [inputs], written out with the matrix w."""
    z, signed = x @ w + b, x[:, None] * w
    match rule:
        case rules.Epsilon(epsilon) | rules.Norm(epsilon):
            return share(signed, b, r, epsilon)
        case rules.ZPlus(epsilon):
            return share(up(signed), up(b), r, epsilon)
        case rules.AlphaBeta(alpha, beta, epsilon):
            positive, negative = (
                share(up(signed), up(b), r, epsilon),
                share(down(signed), down(b), r, epsilon),
            )
            return alpha * positive - beta * negative
        case rules.Gamma(gamma, epsilon):
            favour_up = signed + gamma * up(signed)
            favour_down = signed + gamma * down(signed)
            first = share(favour_up, b + gamma * up(b), np.where(z > 0, r, 0), epsilon)
            return first + share(favour_down, b + gamma * down(b), np.where(z < 0, r, 0), epsilon)
        case rules.ZBox(epsilon):
            box = signed - low[:, None] * up(w) - high[:, None] * down(w)
            return share(box, 0 * b, r, epsilon)
        case rules.WSquare(epsilon):
            return share(w**2, b**2, r, epsilon)
        case rules.Flat(epsilon):
            return share((w != 0).astype(float), 0 * b, r, epsilon)
        case rules.Gradient():
            return w @ r
    raise AssertionError(rule)


ALL_RULES = [
    rules.Epsilon(),
    rules.Epsilon(0.3),
    rules.Norm(),
    rules.ZPlus(),
    rules.AlphaBeta(2.0, 1.0),
    rules.AlphaBeta(1.5, 0.5),
    rules.AlphaBeta(1.0, 0.0),
    rules.Gamma(),
    rules.Gamma(1.0, 0.1),
    rules.ZBox(),
    rules.WSquare(),
    rules.Flat(),
    rules.Gradient(),
]
SHAPE = (5, 4, 2)
LAYERS = {
    "conv": (lambda k, x: conv(x, k, padding=((1, 0), (1, 1))), normal(3, 2, 2, 3), (3,)),
    "strided": (lambda k, x: conv(x, k, strides=(2, 1)), normal(2, 3, 2, 3), (3,)),
    "grouped": (lambda k, x: conv(x, k, groups=2), normal(3, 3, 1, 4), (4,)),
    "dense": (lambda k, x: x.reshape(len(x), -1) @ k, normal(40, 6), (6,)),
}


def _weighted(r, scores):
    return (scores * r).sum(1)


def _layer(call, gate, kernel, bias, x):
    x = jax.nn.relu(x) if gate else x
    return (call(kernel, x) + bias).reshape(len(x), -1)


SOME_RULES = [rules.Gamma(), rules.AlphaBeta(2.0, 1.0), rules.WSquare(), rules.Flat()]
PAIRS = [(rule, "conv") for rule in ALL_RULES]
PAIRS += [(rule, layer) for rule in SOME_RULES for layer in ("strided", "grouped", "dense")]


@pytest.mark.sampled
@pytest.mark.parametrize(("rule", "layer"), PAIRS, ids=str)
def test_rules_are_what_their_matrices_say(rule, layer):
    rng = np.random.default_rng(1)
    call, kernel, features = LAYERS[layer]
    bias = jnp.asarray(rng.normal(size=features), jnp.float32)
    x = jnp.asarray(rng.normal(size=(1, *SHAPE)), jnp.float32)
    w = matrix(partial(call, kernel), SHAPE)
    r = rng.normal(size=w.shape[1]).astype(np.float32)
    biases = np.broadcast_to(bias, (w.shape[1] // features[0], *features)).ravel()
    low, high = np.broadcast_to(np.float32([-3, -2.5]), SHAPE), 3.0
    bounds = low.ravel().astype(float), np.full(low.size, high)
    # The box is for the image itself, so its layer never follows a ReLU.
    for gate in (False,) if isinstance(rule, rules.ZBox) else (False, True):
        values = np.asarray(x, np.float64).ravel()
        expected = by_matrix(rule, w, up(values) if gate else values, biases, r, *bounds)
        model = Partial(partial(_layer, call, gate), kernel, bias)
        composite = rules.Composite(conv=rule, dense=rule)
        target = Partial(_weighted, jnp.asarray(r))
        ours = jaxai.lrp(model, x, target, composite=composite, low=low, high=high, strict=True)
        np.testing.assert_allclose(ours.ravel(), expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())
