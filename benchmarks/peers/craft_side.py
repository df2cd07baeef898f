"""Xplique's CRAFT as its documentation calls it, on Keras."""

import keras
import numpy as np
from xplique.concepts import CraftTf

from .keras_networks import LAYERS, load
from .keras_networks import about as about

PACKAGES = ("tensorflow", "keras", "xplique", "scikit-learn")


def prepare(command):
    """Return the run of a command."""
    network, images, _ = load(command)
    case = command["case"]
    layer = network.get_layer(LAYERS[case["network"]]).output
    body, head = keras.Model(network.input, layer), keras.Model(layer, network.output)

    def run():
        craft = CraftTf(body, head, number_of_concepts=case["concepts"], patch_size=case["crop"])
        craft.fit(images, class_id=case["target"])
        # Without images it wants a colour for each concept, and has 16.
        return np.asarray(craft.estimate_importance(images, nb_design=case["designs"]))

    return run
