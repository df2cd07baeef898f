"""Networks of Flax and Equinox whose layers can take a delta, and what tests of found layers share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import jaxai

# How a printed program shows the mark of a layer.
MARK = "name[name="
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


class EqxBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d

    def __call__(self, x, deltas=None, path=""):
        y = plus(deltas, f"{path}.conv1", self.conv1(x))
        y = plus(deltas, f"{path}.conv2", self.conv2(jax.nn.relu(y)))
        return plus(deltas, path, jax.nn.relu(x + y))


class EqxNet(eqx.Module):
    stem: eqx.nn.Conv2d
    layer1: list
    act: eqx.nn.Lambda
    fc: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        conv = lambda i, k, **o: eqx.nn.Conv2d(i, 4, 3, padding=1, key=keys[k], **o)  # noqa: E731
        self.stem = conv(3, 0, stride=2)
        self.layer1 = [EqxBlock(conv(4, 1), conv(4, 2)), EqxBlock(conv(4, 3), conv(4, 4))]
        self.act = eqx.nn.Lambda(jax.nn.relu)
        self.fc = eqx.nn.Linear(4, 5, key=keys[5])

    def __call__(self, x, deltas=None):
        x = plus(deltas, "stem", self.stem(x))
        for i, block in enumerate(self.layer1):
            x = block(x, deltas, f"layer1.{i}")
        return plus(deltas, "fc", self.fc(self.act(x).mean((1, 2))))


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        y = jax.nn.relu(self.perturb("one", linen.Conv(4, (3, 3))(x)))
        return self.perturb("out", jax.nn.relu(x + linen.Conv(4, (3, 3))(y)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = self.perturb("stem", linen.Conv(4, (3, 3), strides=2)(x))
        x = linen.remat(LinenBlock)(name="block_1")(LinenBlock(name="block_0")(x))
        return linen.Dense(5)(x.mean((1, 2)))


def batched(net, x, deltas=None):
    return jax.vmap(net)(jnp.moveaxis(x, -1, 1), deltas)


def cam(net, layer, images=X):
    return jaxai.grad_cam(net, images, 1, layer=layer, upsample=False, relu=False)
