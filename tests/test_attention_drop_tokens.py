"""Dropped tokens: the scores are those of a network that was never given them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close
from flax import nnx

import jaxai
from jaxai.layers import Tokens
from jaxai.models.vit import VisionTransformer

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(4, 12, 16, 3)), "float32")
KEPT = np.random.default_rng(2).random((4, 3, 4)) > 0.4


def hidden(seen, kept, patch):
    """What a method shows: zeros in all channels where patches are hidden."""
    return seen * np.repeat(np.repeat(kept, patch, 1), patch, 2)[..., None]


def without(p, image, kept, *, pooled=False):
    """Scores of the tiny transformer that is given some patches only, taken out of the sequence."""
    left = np.flatnonzero(kept)
    patches = jax.lax.conv_general_dilated(
        image[None], p["patches"], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(1, -1, tiny_vit.WIDTH)
    # One row of patches whose convolution is the identity.
    short = {
        **p,
        "patches": jnp.eye(tiny_vit.WIDTH).reshape(1, 1, tiny_vit.WIDTH, tiny_vit.WIDTH),
        "positions": p["positions"][:, left],
    }
    x = patches[:, left][:, None]
    old, tiny_vit.PATCH = tiny_vit.PATCH, 1
    try:
        return tiny_vit.forward(short, x, pooled=pooled)[0]
    finally:
        tiny_vit.PATCH = old


@pytest.mark.sampled
@pytest.mark.parametrize("pooled, registers", [(False, 2), (True, 0)])
@pytest.mark.slow
def test_scores_are_those_of_the_tokens_that_are_left(pooled, registers):
    model = tiny_vit.model(3, pooled=pooled, registers=registers)
    dropping, seen = jaxai.attention.drop_tokens(model, IMAGES)
    assert seen.shape == (4, 12, 16, 4) and (seen[..., 3] == 1).all()
    run = jax.jit(lambda net, x: net(x))
    close(run(dropping, seen), model(IMAGES))
    found = run(dropping, hidden(seen, KEPT, 4))
    expected = [without(model.args[0], x, kept, pooled=pooled) for x, kept in zip(IMAGES, KEPT, strict=True)]
    close(found, jnp.stack(expected))


@pytest.mark.slow
def test_the_zoo_s_transformer_is_that_of_its_blocks_on_fewer_tokens():
    model = VisionTransformer("tiny", patch=16, image=64, registers=2, classes=5, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(3).normal(size=(2, 64, 64, 3)), "float32")
    model.patch_embed.positions[...] = jax.random.normal(jax.random.key(1), (16, 192))  # pyright: ignore[reportAttributeAccessIssue]
    kept = np.random.default_rng(4).random((2, 4, 4)) > 0.5
    dropping, seen = jaxai.attention.drop_tokens(model, images)
    found = dropping(hidden(seen, kept, 16))
    for i in range(2):
        x = model(images[i : i + 1], stop="patch_embed")
        x = x[:, np.concatenate([[0, 1, 2], 3 + np.flatnonzero(kept[i])])]
        close(found[i], model(x, start="patch_embed")[0])


@pytest.mark.slow
def test_methods_that_hide_parts_give_exact_shapley_values_of_dropping():
    """Values of four quarters, against all 16 games played with tokens that are not there."""
    image = jnp.asarray(np.random.default_rng(6).normal(size=(1, 8, 8, 3)), "float32")
    model = tiny_vit.model(3, size=(8, 8))
    dropping, seen = jaxai.attention.drop_tokens(model, image)
    segments = jaxai.segment(jnp.zeros_like(image), method="grid", rows=2, columns=2)
    found = jaxai.exact_shapley(dropping, seen, 1, segments=segments, fill=0.0)
    games = np.array([[bits >> i & 1 for i in range(4)] for bits in range(16)], bool)
    shown = hidden(jnp.repeat(seen, 16, 0), games.reshape(16, 2, 2), 4)
    value = np.asarray(jax.nn.softmax(dropping(shown), -1)[:, 1])
    players = [float(found.heatmap[0, 4 * (i // 2), 4 * (i % 2)]) for i in range(4)]
    close(np.sum(players), value[15] - value[0])
    weights = {0: 1 / 4, 1: 1 / 12, 2: 1 / 12, 3: 1 / 4}
    for i in range(4):
        gains = [
            weights[int(games[bits].sum())] * (value[bits | 1 << i] - value[bits])
            for bits in range(16)
            if not bits >> i & 1
        ]
        close(players[i], np.sum(gains))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lime", "rise"])
def test_methods_take_the_network_in_batches(method):
    model = tiny_vit.model(3)
    dropping, seen = jaxai.attention.drop_tokens(model, IMAGES)
    options = {"key": jax.random.key(0), "fill": 0.0}
    if method == "lime":
        options |= {
            "segments": jaxai.segment(jnp.zeros_like(IMAGES), method="grid", rows=3, columns=4),
            "num_samples": 20,
        }
    else:
        options |= {"num_masks": 20, "grid": (3, 4)}
    found = getattr(jaxai, method)(dropping, seen, [1, 0, 2, 3], **options)
    found = getattr(found, "heatmap", found)
    assert found.shape == (4, 12, 16) and np.isfinite(found).all() and np.ptp(np.asarray(found)) > 0


def _overlapping(x):
    tokens = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME").reshape(
        len(x), -1, 3
    )
    return (jax.nn.softmax(tokens @ tokens.swapaxes(1, 2)) @ tokens).mean(1)


def _largest(x):
    tokens = x.reshape(len(x), -1, 3)
    return (jax.nn.softmax(tokens @ tokens.swapaxes(1, 2)) @ tokens + tokens).max(1)


@pytest.mark.parametrize("model", [_overlapping, _largest])
def test_networks_that_still_see_what_is_dropped_are_refused(model):
    with pytest.raises(ValueError, match="must not depend on patches whose tokens are dropped"):
        jaxai.attention.drop_tokens(model, IMAGES[:, :4, :4])


def test_bad_input_is_one_line():
    model = tiny_vit.model(3)
    with pytest.raises(TypeError, match="`tokens` must be"):
        jaxai.attention.drop_tokens(model, IMAGES, tokens=(3, 4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must fit the network's 13 tokens"):
        jaxai.attention.drop_tokens(model, IMAGES, tokens=Tokens((4, 4)))
    with pytest.raises(ValueError, match="must have attention matrices"):
        jaxai.attention.drop_tokens(lambda x: x.mean((1, 2)), IMAGES)
