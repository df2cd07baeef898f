"""Bidirectional attention, by heads and by tokens, against its equations written out in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close
from tiny_vit import matrices_and_slopes, row

import jaxai
from jaxai.layers import Tokens

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(3, 12, 16, 3)), "float32")
CLASSES = np.array([1, 3, 0])
BY_TOKENS = partial(jaxai.attention.bidirectional, approximation="token", steps=3)
raw = {"upsample": False}


def by_both_directions(parameters, images, classes, *, steps, **options):
    """Written out as the paper's section 4 has it, one image at a time."""
    matrices, slopes = matrices_and_slopes(parameters, images, classes, **options)
    shares = np.linspace(0, 1, steps)
    last = np.mean(
        [matrices_and_slopes(parameters, images * share, classes, **options)[1][-1] for share in shares],
        axis=0,
    )
    found = []
    for i in range(len(images)):
        perceived = np.eye(matrices.shape[-1])
        for layer, slope in zip(matrices[:, i], slopes[:, i], strict=True):
            weights = np.array([np.abs(a.T @ g).mean() for a, g in zip(layer, slope, strict=True)])
            perceived = perceived + np.tensordot(weights / weights.sum(), layer, axes=1) @ perceived
        found.append(perceived * np.maximum(last[i], 0).mean(0))
    return np.array(found)


def streams_and_values(p, image):
    """The tokens before each block, what each hands on [tokens, width], and the matrices, in NumPy."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)

    def norm(q, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * q["scale"] + q["bias"]

    def dense(q, x):
        return x @ q["kernel"] + q["bias"]

    size, width = tiny_vit.PATCH, tiny_vit.WIDTH
    rows, columns = image.shape[0] // size, image.shape[1] // size
    patches = image.reshape(rows, size, columns, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    x = np.concatenate(
        [
            p["class_token"][0],
            p["registers"][0],
            patches @ p["patches"].reshape(-1, width) + p["positions"][0],
        ]
    )
    streams, values, matrices = [], [], []
    for block in p["blocks"]:
        q, k, v = np.split(dense(block["qkv"], norm(block["norm1"], x)), 3, axis=-1)
        q, k, v = (each.reshape(len(x), tiny_vit.HEADS, -1).transpose(1, 0, 2) for each in (q, k, v))
        logits = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        matrix = logits / logits.sum(-1, keepdims=True)
        streams.append(x)
        handed = v.transpose(1, 0, 2).reshape(len(x), -1) @ block["out"]["kernel"]
        values.append(handed * block["scales"][0])
        matrices.append(matrix)
        mixed = (matrix @ v).transpose(1, 0, 2).reshape(len(x), -1)
        x = x + block["scales"][0] * dense(block["out"], mixed)
        up = dense(block["up"], norm(block["norm2"], x))
        gelu = up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
        x = x + block["scales"][1] * dense(block["down"], gelu)
    return streams, values, matrices


@pytest.mark.slow
@pytest.mark.parametrize("pooled, registers", [(False, 2), (True, 0)])
def test_bidirectional_by_tokens_is_its_definition(pooled, registers):
    """Section 4.1's equation of tokens, one image at a time, in NumPy."""
    model = tiny_vit.model(3, pooled=pooled, registers=registers)
    parameters, prefix = model.args[0], 1 + registers
    slopes = np.mean(
        [
            matrices_and_slopes(parameters, IMAGES * share, CLASSES, pooled=pooled)[1][-1]
            for share in np.linspace(0, 1, 4)
        ],
        axis=0,
    )
    both = []
    for image, slope in zip(np.asarray(IMAGES, np.float64), slopes, strict=True):
        perceived = np.eye(prefix + 12)
        for stream, value, matrix in list(zip(*streams_and_values(parameters, image), strict=True))[1:]:
            ratio = np.linalg.norm(value, axis=-1) / np.linalg.norm(stream, axis=-1)
            perceived = perceived + matrix.mean(0) @ np.diag(ratio) @ perceived
        both.append(perceived * np.maximum(slope, 0).mean(0))
    options = {"approximation": "token", "start": 1, "steps": 4}
    found = jaxai.attention.bidirectional(model, IMAGES, CLASSES, **options, **raw)
    close(found, row(np.array(both), prefix, pooled))
    several = jnp.stack([jnp.asarray(CLASSES), 4 - jnp.asarray(CLASSES)], 1)
    again = jaxai.attention.bidirectional(model, IMAGES, several, **options, **raw)
    close(again[:, 0], found)


@pytest.mark.sampled
@pytest.mark.parametrize("pooled, registers", [(False, 2), (True, 0)])
@pytest.mark.slow
def test_bidirectional_is_its_definition(pooled, registers):
    model = tiny_vit.model(3, pooled=pooled, registers=registers)
    parameters, prefix = model.args[0], 1 + registers
    both = by_both_directions(parameters, IMAGES, CLASSES, steps=5, pooled=pooled)
    found = jaxai.attention.bidirectional(model, IMAGES, CLASSES, steps=5, **raw)
    close(found, row(both, prefix, pooled))


@pytest.mark.slow
def test_bidirectional_by_tokens_takes_functions_with_a_derivative_of_their_own():
    """As the zoo's dense layers are."""

    @jax.custom_vjp
    def own(x):
        return 2 * x

    own.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def net(double, x):
        tokens = x.reshape(len(x), 12, 48)
        tokens = tokens + double(jax.nn.softmax(tokens @ tokens.swapaxes(1, 2) / 40) @ tokens)
        return (tokens + jax.nn.softmax(tokens @ tokens.swapaxes(1, 2) / 40) @ double(tokens)).mean(1)

    options = {"tokens": Tokens(grid=(3, 4)), **raw}
    expected = BY_TOKENS(partial(net, lambda x: 2 * x), IMAGES, 2, **options)
    close(BY_TOKENS(partial(net, own), IMAGES, 2, **options), expected)


@pytest.mark.slow
def test_bidirectional_asks_for_the_top_class_of_the_whole_image():
    model = tiny_vit.model(0)
    top = np.asarray(model(IMAGES).argmax(-1))
    assert (top != np.asarray(model(0 * IMAGES).argmax(-1))).any()
    close(
        jaxai.attention.bidirectional(model, IMAGES, steps=3, **raw),
        jaxai.attention.bidirectional(model, IMAGES, top, steps=3, **raw),
    )
