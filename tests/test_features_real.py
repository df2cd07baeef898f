"""Feature visualization on the real networks."""

import jax
import numpy as np
import optax
import pytest

import jaxai

QUICK = {"key": jax.random.key(0), "transforms": None, "redirect": 0, "size": 32, "steps": 6}


@pytest.fixture(scope="module")
def vgg():
    return jaxai.models.load("vgg16_features")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("kind", ["fourier", "pixels", "laplacian", "cppn"])
@pytest.mark.parametrize(("network", "layer"), [("lite0", "block2a"), ("vgg", "conv2_1")])
def test_objectives_rise_for_every_parametrization(request, network, layer, kind):
    net = request.getfixturevalue(network)
    found = jaxai.visualize(
        net.model,
        [f"{layer}:3", f"{layer}:9"],
        normalize=net.normalize,
        parametrization=kind,
        # Steps that suit pixels and coefficients throw a CPPN's weights about: its rate is ten times smaller.
        optimizer=optax.adam(0.005) if kind == "cppn" else None,
        **QUICK,
    )
    history = np.asarray(found.history)
    assert (history[:, -1] > history[:, 0]).all()


@pytest.mark.slow
def test_the_default_recipe_rises_on_vgg_and_a_run_alone_is_the_same(vgg):
    options = {"key": QUICK["key"], "normalize": vgg.normalize, "size": 40, "steps": 10, "redirect": 4}
    found = jaxai.visualize(vgg.model, ["conv3_1:5", "conv3_1:7"], **options)
    history = np.asarray(found.history)
    assert (history[:, -1] > 2 * history[:, 0]).all()
    alone = jaxai.visualize(vgg.model, "conv3_1:7", indices=[1], **options)
    np.testing.assert_allclose(alone.history[0], history[1], rtol=1e-4)
