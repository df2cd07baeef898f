"""A small vision transformer in plain JAX, and the gradients that relevance rules for it amount to.

Patches by a convolution, a class token, registers, pre-norm blocks with LayerScale, a final norm and a linear
head; parameters are a pytree of random arrays.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

PATCH, WIDTH, HEADS, DEPTH, CLASSES = 4, 12, 3, 3, 5


def parameters(seed=0, *, size=(12, 16), registers=0, biases=True, depth=DEPTH):
    """Return random parameters for images of this size."""
    rng = np.random.default_rng(seed)

    def dense(rows, columns):
        kernel = rng.normal(size=(rows, columns)) / math.sqrt(rows)
        return {"kernel": kernel, "bias": rng.normal(size=columns) * 0.3 * biases}

    def norm():
        return {"scale": rng.uniform(0.5, 1.5, WIDTH), "bias": rng.normal(size=WIDTH) * 0.3 * biases}

    grid = size[0] // PATCH, size[1] // PATCH
    found = {
        "patches": rng.normal(size=(PATCH, PATCH, 3, WIDTH)) / 7,
        "class_token": rng.normal(size=(1, 1, WIDTH)) * biases,
        "registers": rng.normal(size=(1, registers, WIDTH)) * biases,
        "positions": rng.normal(size=(1, grid[0] * grid[1], WIDTH)) * biases,
        "blocks": [
            {
                "norm1": norm(),
                "qkv": dense(WIDTH, 3 * WIDTH),
                "out": dense(WIDTH, WIDTH),
                "norm2": norm(),
                "up": dense(WIDTH, 2 * WIDTH),
                "down": dense(2 * WIDTH, WIDTH),
                "scales": rng.uniform(0.5, 1.0, (2, WIDTH)),
            }
            for _ in range(depth)
        ],
        "norm": norm(),
        "head": dense(WIDTH, CLASSES),
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), found)


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def layer_norm(p, x, hold=lambda x: x):
    centred = x - x.mean(-1, keepdims=True)
    spread = hold(jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6))
    return centred / spread * p["scale"] + p["bias"]


def attention(p, x, *, change=lambda matrix: matrix, scale=lambda x, share: x):
    batch, count = x.shape[:2]
    q, k, v = jnp.moveaxis(linear(p["qkv"], x).reshape(batch, count, 3, HEADS, -1), 2, 0)
    q, k, v = scale(q, 4), scale(k, 4), scale(v, 2)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(WIDTH // HEADS)
    matrix = change(jax.nn.softmax(logits, axis=-1))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", matrix, v).reshape(batch, count, WIDTH)
    return linear(p["out"], mixed)


def forward(p, images, *, pooled=False, deltas=None, seen=None, activation=jax.nn.gelu, **more):
    """Return scores [batch, classes].

    Args:
        p: As `parameters` returns them.
        images: [batch, height, width, 3].
        pooled: Whether the head reads the mean of the patches instead of the class token.
        deltas: Added to the attention matrices, one for each block.
        seen: A list that takes the attention matrices.
        activation: Of the hidden layers.
        **more: `hold` for norms and `scale` for attention.
    """
    batch = images.shape[0]
    x = lax.conv_general_dilated(
        images, p["patches"], (PATCH, PATCH), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(batch, -1, WIDTH)
    extra = [jnp.broadcast_to(p[name], (batch, *p[name].shape[1:])) for name in ("class_token", "registers")]
    x = jnp.concatenate([*extra, x + p["positions"]], axis=1)
    norm = partial(layer_norm, hold=more["hold"]) if "hold" in more else layer_norm
    for i, block in enumerate(p["blocks"]):

        def change(matrix, i=i):
            matrix = matrix if deltas is None else matrix + deltas[i]
            if seen is not None:
                seen.append(matrix)
            return matrix

        options = {"scale": more["scale"]} if "scale" in more else {}
        x = x + block["scales"][0] * attention(block, norm(block["norm1"], x), change=change, **options)
        hidden = activation(linear(block["up"], norm(block["norm2"], x)))
        x = x + block["scales"][1] * linear(block["down"], hidden)
    x = norm(p["norm"], x)
    prefix = 1 + p["registers"].shape[1]
    return linear(p["head"], x[:, prefix:].mean(1) if pooled else x[:, 0])


def model(seed=0, *, pooled=False, **options):
    """Return the transformer as a callable pytree."""
    return Partial(partial(forward, pooled=pooled), parameters(seed, **options))


def matrices_and_slopes(parameters, images, classes, **options):
    """The attention matrices [layers, batch, heads, tokens, tokens], and the gradients of the scores."""
    seen = []
    forward(parameters, images, seen=seen, **options)

    def score(deltas):
        scores = forward(parameters, images, deltas=deltas, **options)
        return scores[jnp.arange(len(classes)), classes].sum()

    slopes = jax.grad(score)([jnp.zeros_like(matrix) for matrix in seen])
    return np.asarray(seen, np.float64), np.asarray(slopes, np.float64)


def row(paths, prefix, pooled):
    """Return what reaches the head from each patch of images of 12 x 16 pixels, [batch, 3, 4]."""
    tokens = paths[:, prefix:].mean(1) if pooled else paths[:, 0]
    return tokens[:, prefix:].reshape(-1, 3, 4)
