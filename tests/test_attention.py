"""Attention methods against their definitions written out, on transformers of several libraries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close, slow_but
from flax import nnx
from flax.nnx.nn.attention import dot_product_attention_weights
from jax.tree_util import Partial
from tiny_vit import matrices_and_slopes, row

import jaxai
from jaxai.layers import Tokens

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(3, 12, 16, 3)), "float32")
CLASSES = np.array([1, 3, 0])
METHODS = {name: getattr(jaxai.attention, name) for name in jaxai.attention.__all__ if name != "drop_tokens"}
BY_TOKENS = partial(jaxai.attention.bidirectional, approximation="token", steps=3)
raw = {"upsample": False}


def by_rollout(matrices):
    paths = np.eye(matrices.shape[-1])
    for matrix in matrices.mean(2):
        mixing = matrix + np.eye(matrices.shape[-1])
        paths = mixing / mixing.sum(-1, keepdims=True) @ paths
    return paths


def by_gradients(matrices, slopes):
    paths = np.eye(matrices.shape[-1])
    for matrix, slope in zip(matrices, slopes, strict=True):
        paths = paths + np.maximum(matrix * slope, 0).mean(1) @ paths
    return paths


def by_legrad(parameters, images, classes, **options):
    """Run the first l blocks and the head, for each l; the gradient of the last block's matrix."""
    total = 0
    for count in range(1, len(parameters["blocks"]) + 1):
        short = {**parameters, "blocks": parameters["blocks"][:count]}
        _, slopes = matrices_and_slopes(short, images, classes, **options)
        total = total + np.maximum(slopes[-1], 0).mean((1, 2))
    return total / len(parameters["blocks"])


@pytest.mark.parametrize(
    "pooled, registers",
    [(False, 2), *(pytest.param(pooled, 0, marks=pytest.mark.slow) for pooled in (False, True))],
)
def test_methods_are_their_definitions(pooled, registers):
    model = tiny_vit.model(3, pooled=pooled, registers=registers)
    parameters, prefix = model.args[0], 1 + registers
    matrices, slopes = matrices_and_slopes(parameters, IMAGES, CLASSES, pooled=pooled)
    found = jaxai.attention.rollout(model, IMAGES, **raw)
    close(found, row(by_rollout(matrices), prefix, pooled))
    found = jaxai.attention.gradient_attention(model, IMAGES, CLASSES, **raw)
    close(found, row(by_gradients(matrices, slopes), prefix, pooled))
    later = jaxai.attention.gradient_attention(model, IMAGES, CLASSES, start=2, **raw)
    close(later, row(by_gradients(matrices[2:], slopes[2:]), prefix, pooled))
    expected = by_legrad(parameters, IMAGES, CLASSES, pooled=pooled)[:, prefix:].reshape(-1, 3, 4)
    close(jaxai.attention.legrad(model, IMAGES, CLASSES, **raw), expected)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(
    "method",
    [
        jaxai.attention.rollout,
        pytest.param(jaxai.attention.gradient_attention, marks=pytest.mark.slow),
        pytest.param(partial(jaxai.attention.bidirectional, steps=2), marks=pytest.mark.slow),
    ],
    ids=["rollout", "gradient_attention", "bidirectional"],
)
def test_the_tokens_that_the_network_reads_are_looked_at(method, pooled):
    """A network may have a first token before the grid, and yet read the mean of the grid."""
    model = tiny_vit.model(3, pooled=pooled, registers=2)
    two = jnp.stack([jnp.asarray(CLASSES), 4 - jnp.asarray(CLASSES)], 1)
    targets = None if method is jaxai.attention.rollout else two
    found, of_class, of_grid = (
        np.asarray(method(model, IMAGES, targets, queries=queries, **raw))
        for queries in (None, "class", "mean")
    )
    np.testing.assert_array_equal(found, of_grid if pooled else of_class)
    assert np.ptp(found, axis=(-2, -1)).min() > 0
    assert np.abs(of_class - of_grid).max() > 1e-6


@pytest.mark.slow
def test_variants_of_rollout():
    model = tiny_vit.model(4)
    matrices, _ = matrices_and_slopes(model.args[0], IMAGES, CLASSES)
    for fusion in ("max", "min"):
        fused = getattr(np, fusion)(matrices, axis=2)[:, :, None]
        found = jaxai.attention.rollout(model, IMAGES, head_fusion=fusion, **raw)
        close(found, row(by_rollout(fused), 1, False))
    count, kept = matrices.shape[-1], matrices.mean(2)
    for layer in kept:
        for one in layer:
            least = np.sort(one.ravel())[int(0.4 * count**2) - 1]
            one[:, 1:][one[:, 1:] <= least] = 0
    found = jaxai.attention.rollout(model, IMAGES, discard_ratio=0.4, **raw)
    close(found, row(by_rollout(kept[:, :, None]), 1, False))


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but("gradient_attention", [*METHODS, "bidirectional by tokens"]))
def test_targets_chunks_jit_and_alone(name):
    model, method = tiny_vit.model(5), METHODS.get(name, BY_TOKENS)
    both = jnp.asarray([[0, 2], [1, 3], [4, 0]])
    whole = method(model, IMAGES, both)
    assert whole.shape == (3, 2, 12, 16) and whole.dtype == jnp.float32 and (whole >= 0).all()
    close(method(model, IMAGES, both, batch_size=1), whole)
    close(jax.jit(method)(model, IMAGES, both), whole)
    close(method(model, IMAGES[1:2], both[1, 1])[0], whole[1, 1])
    close(method(model, IMAGES), method(model, IMAGES, model(IMAGES).argmax(1)))
    chosen = method(model, IMAGES, lambda scores: scores[:, 2])
    close(chosen, method(model, IMAGES, 2))
    close(jaxai.maps.upsample(method(model, IMAGES, 2, **raw), (12, 16)), chosen)
    # Weights are arguments of the compiled program.
    other = tiny_vit.model(6)
    assert np.abs(method(other, IMAGES, 2) - chosen).max() > 1e-3 * np.abs(chosen).max()


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(12, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)

    def __call__(self, x):
        return x + self.attention(self.norm(x))


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.patches = nnx.Conv(3, 12, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, 12)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@pytest.mark.slow
def test_matrices_of_a_library():
    model = Transformer(nnx.Rngs(0))
    seen = []

    def watched(query, key, value, **options):
        weights = dot_product_attention_weights(query, key)
        seen.append(weights)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)

    spy = nnx.clone(model)
    for block in spy.blocks:
        block.attention.attention_fn = watched
    close(spy(IMAGES), model(IMAGES))
    found = jaxai.attention.rollout(model, IMAGES, **raw)
    close(found, row(by_rollout(np.asarray(seen[:2], np.float64)), 0, True))


def one_image(kernel, image):
    """A transformer of one image that has its batch axis from `vmap` and its layers in a scan."""
    grid = image.reshape(3, 4, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(12, 48) @ kernel["in"]

    def block(x, weights):
        logits = (x @ weights["q"]) @ (x @ weights["k"]).T / 3
        return x + jax.nn.softmax(logits) @ (x @ weights["v"]), None

    x, _ = jax.lax.scan(block, grid, kernel["blocks"])
    return x.mean(0)


@pytest.mark.slow
def test_mapped_images_and_scanned_layers():
    rng = np.random.default_rng(2)
    kernel = {
        "in": jnp.asarray(rng.normal(size=(48, 7)) / 7, "float32"),
        "blocks": {n: jnp.asarray(rng.normal(size=(4, 7, 7)) / 3, "float32") for n in "qkv"},
    }
    model = Partial(lambda p, x: jax.vmap(partial(one_image, p))(x), kernel)
    found = jaxai.attention.gradient_attention(model, IMAGES, CLASSES, **raw)
    # The same layers one by one.
    step = lambda i: jax.tree.map(lambda w: w[i], kernel["blocks"])  # noqa: E731

    def run(deltas, image, seen=None):
        x = image.reshape(3, 4, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(12, 48) @ kernel["in"]
        for i in range(4):
            w = step(i)
            matrix = jax.nn.softmax((x @ w["q"]) @ (x @ w["k"]).T / 3) + deltas[i]
            if seen is not None:
                seen.append(matrix)
            x = x + matrix @ (x @ w["v"])
        return x.mean(0)

    for image, label, one in zip(IMAGES, CLASSES, found, strict=True):
        seen, zeros = [], jnp.zeros((4, 12, 12))
        run(zeros, image, seen)
        slopes = jax.grad(lambda d, i=image, c=label: run(d, i)[c])(zeros)
        paths = by_gradients(np.asarray(seen)[:, None, None], np.asarray(slopes)[:, None, None])
        close(one, paths[0].mean(0).reshape(3, 4))


def test_a_pool_by_attention_reads_the_tokens():
    probe = jnp.asarray(np.random.default_rng(3).normal(size=(1, 12)), "float32")

    def model(x):
        tokens = x.reshape(len(x), 12, 16, 3).mean(2)
        tokens = jnp.tile(tokens, (1, 1, 4))
        tokens = tokens + jax.nn.softmax(tokens @ tokens.swapaxes(1, 2) / 3) @ tokens
        weights = jax.nn.softmax(probe @ tokens.swapaxes(1, 2))
        return (weights @ tokens)[:, 0]

    found = jaxai.attention.gradient_attention(model, IMAGES, 3, tokens=Tokens(grid=(12, 1)), **raw)
    assert found.shape == (3, 12, 1) and (found > 0).any()
    with pytest.raises(ValueError, match="no rule for a pool by attention"):
        jaxai.attention.legrad(model, IMAGES, 3, tokens=Tokens(grid=(12, 1)))


@pytest.mark.parametrize("name", METHODS)
def test_errors(name, pooled_net, small_images):
    method, model = METHODS[name], tiny_vit.model(7)
    with pytest.raises(ValueError, match="must have attention matrices"):
        method(pooled_net, small_images)
    with pytest.raises(TypeError, match=r"`tokens` must be a jaxai.layers.Tokens; got \(3, 4\)"):
        method(model, IMAGES, tokens=(3, 4))
    with pytest.raises(ValueError, match="`tokens` must fit the network's 13 tokens"):
        method(model, IMAGES, tokens=Tokens(grid=(4, 4)))
    order = np.random.default_rng(0).permutation(12)

    def shuffled(x):
        tokens = x.reshape(len(x), 12, 48)[:, order]
        return (tokens + jax.nn.softmax(tokens @ tokens.swapaxes(1, 2)) @ tokens).mean(1)

    with pytest.raises(ValueError, match="does not tell how its 12 tokens lie on the image: pass tokens="):
        method(shuffled, IMAGES)
    assert method(shuffled, IMAGES, 0, tokens=Tokens(grid=(3, 4))).shape == IMAGES.shape[:3]

    def windows(x):
        tokens = x.reshape(len(x), 12, 48)
        tokens = tokens + jax.nn.softmax(tokens @ tokens.swapaxes(1, 2)) @ tokens
        fewer = tokens.reshape(len(x), 6, 96)
        return (jax.nn.softmax(fewer @ fewer.swapaxes(1, 2)) @ fewer).mean(1)

    with pytest.raises(ValueError, match="its matrices are 12 x 12, 6 x 6"):
        method(windows, IMAGES)


def test_errors_of_options():
    model = tiny_vit.model(7)
    with pytest.raises(ValueError, match="`head_fusion` must be one of mean, max, min"):
        jaxai.attention.rollout(model, IMAGES, head_fusion="sum")
    with pytest.raises(ValueError, match=r"`discard_ratio` must be a number in \[0, 1\)"):
        jaxai.attention.rollout(model, IMAGES, discard_ratio=1.0)
    with pytest.raises(ValueError, match="`queries` must be one of class, mean"):
        jaxai.attention.gradient_attention(model, IMAGES, queries="all")
    for method in (jaxai.attention.gradient_attention, jaxai.attention.legrad):
        with pytest.raises(
            ValueError, match="`start` must be less than 3, the number of attention layers; got 3"
        ):
            method(model, IMAGES, start=3)

    def without_residual(x):
        tokens = x.reshape(len(x), 12, 48)
        return (jax.nn.softmax(tokens @ tokens.swapaxes(1, 2)) @ tokens).mean(1)

    for method in (
        jaxai.attention.legrad,
        partial(jaxai.attention.bidirectional, approximation="token"),
    ):
        with pytest.raises(ValueError, match="must have residual connections"):
            method(without_residual, IMAGES, tokens=Tokens(grid=(3, 4)))
    with pytest.raises(ValueError, match="`approximation` must be one of head, token"):
        jaxai.attention.bidirectional(model, IMAGES, approximation="heads")


@pytest.mark.slow
def test_layers_behind_attention_keep_their_tokens():
    model = tiny_vit.model(8, registers=2)
    net = jaxai.layers.find(model, IMAGES)
    layouts = net.layouts(IMAGES)
    tokens = [found for known, found in layouts.values() if isinstance(found, Tokens)]
    assert len(tokens) > 2 * tiny_vit.DEPTH and set(tokens[2:]) == {Tokens(grid=(3, 4), prefix=3)}
    maps = jaxai.grad_cam(net, IMAGES, CLASSES, upsample=False)
    assert maps.shape == (3, 3, 4) and (maps > 0).any()
