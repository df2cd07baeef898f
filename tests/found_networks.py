"""A network of Flax NNX whose layers can take a delta, and what the tests of found layers share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxai

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)), jnp.float32)


def noisy(module):
    """Give biases and scales values that are not zero or one."""
    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    changed = [
        x + 0.1 * jax.random.normal(k, x.shape) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, changed)


def plus(deltas, name, value):
    return value if deltas is None or name not in deltas else value + deltas[name]


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x, deltas=None, path=""):
        y = plus(deltas, f"{path}.conv1", self.conv1(x))
        y = plus(deltas, f"{path}.conv2", self.conv2(jax.nn.relu(y)))
        return plus(deltas, path, jax.nn.relu(x + y))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.layer1 = nnx.List([Block(rngs), Block(rngs)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x, deltas=None):
        x = plus(deltas, "stem", self.stem(x))
        for i, block in enumerate(self.layer1):
            x = block(x, deltas, f"layer1.{i}")
        return plus(deltas, "fc", self.fc(self.drop(x).mean((1, 2))))


def nnx_net():
    net = noisy(NNXNet(nnx.Rngs(0)))
    net.eval()
    return net


def cam(net, layer, images=X):
    return jaxai.grad_cam(net, images, 1, layer=layer, upsample=False, relu=False)
