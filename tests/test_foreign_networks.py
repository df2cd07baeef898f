"""Networks of other packages, as these ship them, through the methods: Grad-CAM, LRP, and every other one.

Keras, jax-resnet, flaxmodels, dm-haiku, jax-image-models and equimo are needed, each for its own networks.
"""

import contextlib

import checked_networks
import foreign_networks
import jax
import jax.numpy as jnp
import pytest
from checked_networks import NO_ATTENTION, NO_CAM, NO_RELU

import jaxai
from jaxai.layers import find

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),
]
TARGET = 1
# Of fifty layers of random units, some lie so close to their kink that rounding flips them, and moves the
# library's own gradients by percents; these are compared in float64.
DOUBLED = ("keras_mobilenet_v2",)


@pytest.fixture(scope="module", params=foreign_networks.NETWORKS)
def network(request):
    """A network, and its mesh while it is explained."""
    with jax.set_mesh(jax.sharding.get_mesh()):
        yield foreign_networks.NETWORKS[request.param]()


def test_grad_cam_at_inner_layers_is_that_of_sums_within_the_librarys_own_call(network, request):
    name = request.node.callspec.params["network"]
    with foreign_networks.doubled() if name in DOUBLED else contextlib.nullcontext():
        _check_grad_cam(foreign_networks.NETWORKS[name]() if name in DOUBLED else network)


def _check_grad_cam(network):
    model, images = find(network.model, network.images), network.images
    layouts = model.layouts(images)
    acts = {layer: model(images, stop=layer) for layer in network.layers}

    def score(deltas, images):
        return network.plus(deltas, images)[:, TARGET].sum()

    gradients = jax.jit(jax.grad(score))({n: jnp.zeros_like(a) for n, a in acts.items()}, images)
    assert len(network.layers) == 3
    for layer in network.layers:
        _, layout = layouts[layer]
        checked_networks.check_grad_cam(
            model, images, TARGET, layer, layout, acts[layer], gradients[layer], tolerance=1e-4
        )
    checked_networks.check_grad_cam_is_compiled_once(model, images, TARGET, layer)


def test_relevance_is_conserved_without_biases(network):
    """The sum of relevance is the score, with no constant added anywhere; CP-LRP for attention."""
    model, images = find(network.bias_free, network.images), network.images
    attends = any(isinstance(layout, jaxai.layers.Tokens) for _, layout in model.layouts(images).values())
    checked_networks.check_conservation(model, images, TARGET, attends=attends, least=1e-4)


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


# A pass per channel, or hundreds of gradients, of 224 x 224 pixels.
LONG = {"linen_flaxmodels_vgg16": ("score_cam", "is_cam", "ss_cam", "extremal_perturbation")}


def test_every_method_runs_or_says_why_not(network, request):
    model, name = find(network.model, network.images), request.node.callspec.params["network"]
    checked_networks.check_every_method(
        model,
        network.images,
        TARGET,
        names=network.layers[1:],
        narrow=network.layers[0],
        refused=REFUSED[name],
        traced_only=LONG.get(name, ()),
    )
