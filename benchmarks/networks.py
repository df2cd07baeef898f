"""The networks that both sides run, and one file of weights for each."""

from pathlib import Path

import numpy as np

SEED = 0


def load(name: str):
    """Return a jaxai network and where its weights come from.

    VGG16's ImageNet weights are used where they were converted or can be fetched. Where they are missing, the
    ImageNet convolutions of `vgg16_features` and random dense layers (He et al. 2015) serve: times do not
    depend on the weights.
    """
    import jaxai

    try:
        return jaxai.models.load(name).model, "pretrained"
    except (OSError, ImportError):
        from flax import nnx

        from jaxai.models import parameters
        from jaxai.models.zoo import entry

        network = entry(name).make(rngs=nnx.Rngs(SEED))
        real = parameters.flat(jaxai.models.load("vgg16_features").model)
        arrays = {key: np.asarray(value) for key, value in (parameters.flat(network) | real).items()}
        where = f"ImageNet convolutions, random dense layers (seed {SEED})"
        return parameters.build(entry(name).make, arrays), where


def normalize(name: str):
    """Return what maps photos in [0, 1] to the network's input: the convolutions' own normalisation."""
    import jaxai

    known = {row.name: row.available for row in jaxai.models.names()}
    convolutions = "vgg16_features" if name == "vgg16" and not known[name] else name
    return jaxai.models.load(convolutions).normalize


def write_weights(model, path: Path) -> None:
    """Write a jaxai network's parameters, `<layer>.<parameter>`, for other frameworks to read."""
    from safetensors.numpy import save_file

    from jaxai.models import parameters

    save_file({key: np.asarray(value) for key, value in parameters.flat(model).items()}, path)


def read(name: str, path: str):
    """Return the jaxai network with the parameters of a file that `write_weights` wrote."""
    from safetensors.numpy import load_file

    from jaxai.models import parameters
    from jaxai.models.zoo import entry

    return parameters.build(entry(name).make, load_file(path))
