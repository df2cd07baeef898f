"""CRAFT's importances by Xplique, for the real EfficientNet-Lite0, in Keras with the same weights.

OMP_NUM_THREADS=2 PYTHONPATH=REPOSITORY python make_craft_xplique.py LITE0.safetensors OUT.npz
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from provenance import centre, imagenet, save
from sklearn.decomposition import NMF
from xplique.attributions.global_sensitivity_analysis import HaltonSequenceRS
from xplique.concepts import CraftTf

from benchmarks.peers import keras_networks

PHOTOS, CLASS, CONCEPTS, DESIGNS = ("cat", "coffee"), 285, 5, 32

weights, out = sys.argv[1:]
images = imagenet(np.stack([centre(name, 224) for name in PHOTOS]))
with tempfile.TemporaryDirectory() as folder:
    paths = {name: str(Path(folder, f"{name}.npy")) for name in ("images", "classes")}
    np.save(paths["images"], images)
    np.save(paths["classes"], np.full(len(images), CLASS))
    case = {"network": "efficientnet_lite0", "batch": len(images)}
    network, _, _ = keras_networks.load({"case": case, "weights": weights, **paths})
layer = network.get_layer(keras_networks.LAYERS["efficientnet_lite0"]).output
body, head = keras.Model(network.input, layer), keras.Model(layer, network.output)

keras.utils.set_random_seed(0)
craft = CraftTf(body, head, number_of_concepts=CONCEPTS)
_, _, bank = craft.fit(images, class_id=CLASS)
shipped = np.stack([craft.estimate_importance(image[None], DESIGNS) for image in images])
# As shipped the parts have a penalty and stop early; here they are the least squares themselves.
plain = NMF(CONCEPTS, alpha_W=0.0, tol=1e-9, max_iter=20000)
plain.fit(np.ones((CONCEPTS, bank.shape[1]), np.float32))
plain.components_ = bank
craft.factorization.reducer = plain
save(
    out,
    command="make_craft_xplique.py on jaxai's efficientnet_lite0.safetensors; seed 0",
    packages=("xplique", "tensorflow", "keras", "scikit-learn", "scikit-image", "numpy"),
    bank=bank,
    masks=np.asarray(HaltonSequenceRS()(CONCEPTS, nb_design=DESIGNS), np.float32),
    parts=np.asarray(craft.transform(images), np.float32),
    importances=np.stack([craft.estimate_importance(image[None], DESIGNS) for image in images]),
    shipped=shipped,
)
