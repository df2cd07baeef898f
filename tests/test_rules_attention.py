"""LRP of transformers: AttnLRP and CP-LRP against gradients of an altered network, and conservation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close, slow_but

import jaxai

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 16, 3)), "float32")


def share(x, parts):
    """Return a value whose gradient is divided."""
    return x / parts + jax.lax.stop_gradient(x - x / parts)


def proportional(x):
    """GELU with output over input as its derivative: relevance passes unchanged."""
    slope = jax.lax.stop_gradient(jax.nn.gelu(x) / x)
    return slope * x


def gradient_times_input(parameters, images, classes, **options):
    """Achtibat et al.'s rules as gradient x input of a network whose derivatives are changed."""

    def score(x):
        scores = tiny_vit.forward(
            parameters, x, activation=proportional, hold=jax.lax.stop_gradient, **options
        )
        return scores[jnp.arange(len(classes)), classes].sum()

    return images * jax.grad(score)(images)


def held(x, parts):
    """Hold queries and keys constant: relevance passes through the values alone."""
    return jax.lax.stop_gradient(x) if parts == 4 else x


@pytest.mark.slow
@pytest.mark.parametrize("name, scale", [("attn_lrp", share), ("cp_lrp", held)])
@pytest.mark.parametrize("biases", slow_but(True, [True, False]))
def test_composites_are_gradients_of_an_altered_network(name, scale, biases):
    classes = np.array([1, 3])
    model = tiny_vit.model(2, registers=2, biases=biases)
    expected = gradient_times_input(model.args[0], IMAGES, classes, scale=scale)
    found = jaxai.lrp(model, IMAGES, classes, composite=name, relevance="score")
    close(found, expected, 2e-3)


@pytest.mark.slow
def test_cp_lrp_conserves_without_biases():
    model = tiny_vit.model(3, biases=False)
    found = jaxai.lrp(model, IMAGES, jnp.array([[0, 4], [2, 1]]), composite="cp_lrp", relevance="score")
    scores = np.asarray(model(IMAGES))
    expected = np.array([scores[0, [0, 4]], scores[1, [2, 1]]])
    np.testing.assert_allclose(found.sum((2, 3, 4)), expected, rtol=0.01)
