"""Images, weights, a score of both, and a module of Flax NNX, for tests of other libraries' networks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 6, 5, 3)), jnp.float32)
MIX = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)


def features(w, x):
    return jnp.tanh(x @ w).mean((1, 2))


def gradient(w, x=X, target=1):
    return jax.grad(lambda x: features(w, x)[:, target].sum())(x)


class Sowing(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        h = jax.nn.relu(self.conv(x))
        self.sow(nnx.Intermediate, "h", h)
        return h.mean((1, 2))

    def plain(self, x):
        return jax.nn.relu(self.conv(x)).mean((1, 2))
