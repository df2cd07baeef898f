"""Xplique's CRAFT as its documentation calls it, on Keras."""

import keras
import numpy as np
from xplique.concepts import CraftTf

from .keras_networks import LAYERS, load
from .keras_networks import about as about

COLOURS, BEST = 16, 10
PACKAGES = ("tensorflow", "keras", "xplique", "scikit-learn")


def prepare(command):
    """Return the run of a command."""
    network, images, _ = load(command)
    case = command["case"]
    layer = network.get_layer(LAYERS[case["network"]]).output
    body, head = keras.Model(network.input, layer), keras.Model(layer, network.output)

    def run():
        craft = CraftTf(body, head, number_of_concepts=case["concepts"], patch_size=case["crop"])
        crops, amounts, _ = craft.fit(images, class_id=case["target"])
        # Without images it takes those of `fit`, and wants a colour for each concept, of which it has 16.
        some = images if case["concepts"] > COLOURS else None
        importances = craft.estimate_importance(some, nb_design=case["designs"])
        # What its pictures of the best crops show.
        best = np.argsort(-amounts, axis=0)[:BEST]
        np.asarray(crops)[best]
        return np.asarray(importances)

    return run
