"""Networks of other packages, as these ship them, through the methods: Grad-CAM, LRP, and every other one.

Keras, jax-resnet, flaxmodels, dm-haiku, jax-image-models and equimo are needed, each for its own networks.
"""

import re

import foreign_networks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_method import ATTENTION, arrays, of_shape

import jaxai
from jaxai.layers import find

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),
]
TARGET = 1
EPSILON = jaxai.rules.Epsilon(1e-9)

compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: compilations.append(event) if "backend_compile" in event else None
)


@pytest.fixture(scope="module", params=foreign_networks.NETWORKS)
def network(request):
    """A network, and its mesh while it is explained."""
    with jax.set_mesh(jax.sharding.get_mesh()):
        yield foreign_networks.NETWORKS[request.param]()


def test_grad_cam_at_inner_layers_is_that_of_sums_within_the_librarys_own_call(network):
    model, images = find(network.model, network.images), network.images
    layouts = model.layouts(images)
    acts = {layer: model(images, stop=layer) for layer in network.layers}

    def score(deltas, images):
        return network.plus(deltas, images)[:, TARGET].sum()

    gradients = jax.jit(jax.grad(score))({n: jnp.zeros_like(a) for n, a in acts.items()}, images)
    assert len(network.layers) == 3
    for layer in network.layers:
        shape, layout = layouts[layer]
        values, gradient = np.asarray(acts[layer]), np.asarray(gradients[layer])
        if isinstance(layout, jaxai.layers.Tokens):
            inside = slice(layout.prefix, layout.prefix + layout.grid[0] * layout.grid[1])
            values, gradient = (a[:, inside].reshape(len(a), *layout.grid, -1) for a in (values, gradient))
        elif layout == "NCHW":
            values, gradient = np.moveaxis(values, 1, -1), np.moveaxis(gradient, 1, -1)
        expected = (values * gradient.mean((1, 2), keepdims=True)).sum(-1)
        found = np.asarray(
            jaxai.grad_cam(model, images, TARGET, layer=layer, upsample=False, relu=False), np.float64
        )
        scale = np.abs(expected).max()
        assert found.shape == expected.shape and scale > 0
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-4, err_msg=layer)
    others = images + 1
    before = len(compilations)
    jaxai.grad_cam(model, others, TARGET, layer=layer, upsample=False, relu=False)
    assert len(compilations) == before


def test_relevance_is_conserved_without_biases(network):
    """The sum of relevance is the score, with no constant added anywhere; CP-LRP for attention."""
    model, images = find(network.bias_free, network.images), network.images
    scores = np.asarray(model(images))[:, TARGET]
    assert np.abs(scores).min() > 1e-4
    attends = any(isinstance(layout, jaxai.layers.Tokens) for _, layout in model.layouts(images).values())
    composite = "cp_lrp" if attends else jaxai.rules.Composite(conv=EPSILON, dense=EPSILON)
    found = jaxai.lrp(model, images, TARGET, composite=composite, relevance="score")
    np.testing.assert_allclose(np.asarray(found).sum((1, 2, 3)), scores, rtol=0.01)
    others = images + 1
    before = len(compilations)
    jaxai.lrp(model, others, TARGET, composite=composite, relevance="score")
    assert len(compilations) == before


NO_RELU = dict.fromkeys(("deconvnet", "guided_backprop", "guided_grad_cam"), "must contain a ReLU")
NO_CAM = {"class_activation_map": "must be followed by global average pooling and one linear layer"}
NO_ATTENTION = dict.fromkeys(ATTENTION, "must have attention matrices")
# What is refused, and in what words.
REFUSED = dict.fromkeys(foreign_networks.NETWORKS, NO_ATTENTION) | {
    "keras_vgg16": NO_ATTENTION | NO_CAM,
    "keras_efficientnet_b0": NO_ATTENTION | NO_RELU,
    "keras_convnext_tiny": NO_ATTENTION | NO_RELU | NO_CAM,
    "linen_flaxmodels_vgg16": NO_ATTENTION | NO_CAM,
    "nnx_jimm_vit": NO_RELU | NO_CAM,
    "nnx_jimm_clip": NO_RELU | NO_CAM,
    "equinox_equimo_vit": NO_RELU | NO_CAM,
    "equinox_equimo_convnext": NO_ATTENTION | NO_RELU | NO_CAM,
}


def test_every_method_runs_or_says_why_not(network, request):
    """Traced, not computed: compiling all takes an hour."""
    model, images = find(network.model, network.images), network.images
    told = {}
    for name, method in of_shape(images.shape).items():
        options = {"names": network.layers[1:]} if "names" in getattr(method, "keywords", {}) else {}

        def run(model, images, method=method, options=options):
            return arrays(method(model, images, TARGET, **options))

        try:
            found = jax.eval_shape(run, model, images)
        except (ValueError, TypeError) as error:
            told[name] = str(error)
        else:
            assert found and all(leaf.size for leaf in found), name
    expected = REFUSED[request.node.callspec.params["network"]]
    for name, line in told.items():
        assert re.search(expected.get(name, "nothing"), line) and "\n" not in line, (name, line)
    assert set(told) == set(expected)
