"""Feature visualization on the real networks, compiled as users compile it."""

import jax
import numpy as np
import optax
import pytest

import jaxai

QUICK = {"key": jax.random.key(0), "transforms": None, "redirect": 0}


@pytest.mark.parametrize("kind", ["fourier", "pixels", "laplacian", "cppn"])
def test_objectives_rise_on_efficientnet(lite0, kind):
    found = jaxai.visualize(
        lite0.model,
        ["block2b:3", "block2b:9"],
        normalize=lite0.normalize,
        # Steps that suit pixels and coefficients throw a CPPN's weights about: its rate is ten times smaller.
        optimizer=optax.adam(0.005) if kind == "cppn" else None,
        **{**QUICK, "size": 48, "steps": 10, "parametrization": kind},
    )
    history = np.asarray(found.history)
    assert (history[:, -1] > history[:, 0]).all()


def test_objectives_rise_on_vgg():
    vgg = jaxai.models.load("vgg16_features")
    found = jaxai.visualize(
        vgg.model,
        ["conv3_1:5", "conv3_1:7"],
        normalize=vgg.normalize,
        **{**QUICK, "size": 40, "steps": 8, "parametrization": "fourier", "redirect": 4},
    )
    history = np.asarray(found.history)
    assert (history[:, -1] > 2 * history[:, 0]).all()
