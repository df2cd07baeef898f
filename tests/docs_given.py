"""What the pages' examples speak of: networks of the readers' own, their photographs and folders."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx_files
from flax import nnx
from PIL import Image

CLASSES = 300
weights = {"matrix": jnp.ones((3, CLASSES)) * jnp.linspace(-1, 1, CLASSES)}


def linear(parameters, x):
    return jnp.tanh(x).mean((1, 2)) @ parameters["matrix"]


def pictures(count, side=32):
    return jax.random.normal(jax.random.key(1), (count, side, side, 3))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(8, 8, (3, 3), rngs=rngs)

    def __call__(self, x):
        return jax.nn.relu(x + self.conv2(jax.nn.relu(self.conv1(x))))


class Residual(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.layer4 = nnx.List([Block(rngs), Block(rngs)])
        self.fc = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.layer4:
            x = block(x)
        return self.fc(x.mean((1, 2)))


def residual_net():
    model = Residual(nnx.Rngs(0))
    model.eval()
    return model


def with_logits(x):
    return {"logits": linear(weights, x), "features": x.mean((1, 2))}


def transformer():
    from jaxai.models.vit import VisionTransformer

    return VisionTransformer("tiny", patch=8, image=128, rngs=nnx.Rngs(0))


@jax.named_scope("mixed")
def _mixed(x):
    return jax.nn.relu(jnp.moveaxis(x, -1, 1) * jnp.array([1.0, -1.0, 2.0])[:, None, None])


def mixed(x):
    return _mixed(x).mean((2, 3))


def channels_first():
    import equinox as eqx

    class Single(eqx.Module):
        conv: eqx.nn.Conv2d

        def __call__(self, x):
            return jax.nn.relu(self.conv(x)).mean((1, 2))

    return Single(eqx.nn.Conv2d(3, 6, 3, key=jax.random.key(0)))


def parts():
    matrix = jax.random.normal(jax.random.key(2), (3, 8))
    return lambda x: jax.nn.relu(x @ matrix), lambda x: jax.nn.relu(x[:, ::2, ::2]), lambda x: x.mean((1, 2))


def photo(path):
    from skimage import data

    Image.fromarray(data.chelsea()).save(path)


def onnx_file(path):
    made = onnx_files.residual(side=224, classes=1000)
    for node in made.graph.node:
        # As PyTorch would call it.
        node.name = "/layer4/layer4.1/relu_1/Relu" if node.name == "block/relu" else node.name
    onnx_files.save(made, Path(path))
    Path("labels.txt").write_text("\n".join(f"class {i}" for i in range(1000)))


def photo_folder(path, count=4):
    from skimage import data

    for label, picture in (("tabby", data.chelsea()), ("espresso", data.coffee())):
        (Path(path) / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.roll(picture, 40 * i, 1)).save(Path(path) / label / f"{i}.png")


def rated_store(jaxai, photos, store):
    names = ("grad_cam", "saliency")
    metrics = {"insertion": {"steps": 4}}
    options = {"methods": names, "metrics": metrics, "targets": "label", "batch_size": 8}
    jaxai.dataset.plan("efficientnet_lite0", photos, store, **options)
    jaxai.dataset.run(store)
    return jaxai.dataset.open(store)
