"""CAMs without gradients: what happens to the score when channels, masks or positions are left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import jaxai
from jaxai.cam import _dense_head
from jaxai.cam._core import look

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])


@pytest.mark.parametrize("layer", ["conv1", "conv2", "pool"])
def test_ablation_is_the_drop_of_each_channel(layer, dense_net, small_images):
    acts = dense_net(small_images, stop=layer)
    whole = dense_net(small_images)
    expected = np.zeros((3, 2, *acts.shape[1:3]))
    for channel in range(acts.shape[-1]):
        without = dense_net(acts.at[..., channel].set(0), start=layer)
        for k in range(2):
            y, y_k = (np.asarray(s)[np.arange(3), TARGETS[:, k]] for s in (whole, without))
            expected[:, k] += ((y - y_k) / y)[:, None, None] * np.asarray(acts)[..., channel]
    found = jaxai.ablation_cam(
        dense_net, small_images, TARGETS, layer=layer, relu=False, upsample=False, batch_size=4
    )
    close(found, expected, 1e-4)
    # Only a head that begins with a dense layer takes the short way.
    view = look(dense_net, layer, small_images, None, None)
    assert (_dense_head.find(view.head, view.acts) is None) == (layer == "conv1")


@pytest.mark.slow
def test_score_cam_masks_by_upsampled_channels(dense_net, small_images):
    acts = dense_net(small_images, stop="pool")
    weights = np.zeros((3, 6))
    for channel in range(6):
        mask = np.asarray(jax.image.resize(acts[..., channel], (3, 6, 8), "bilinear"))
        low, high = mask.min((1, 2), keepdims=True), mask.max((1, 2), keepdims=True)
        mask = (mask - low) / (high - low + 1e-8)
        weights[:, channel] = dense_net(small_images * mask[..., None])[jnp.arange(3), TARGETS[:, 0]]
    weights = np.exp(weights) / np.exp(weights).sum(1, keepdims=True)
    expected = (weights[:, None, None] * np.asarray(acts)).sum(-1)
    options = dict(layer="pool", relu=False, upsample=False)
    close(jaxai.score_cam(dense_net, small_images, TARGETS[:, 0], **options), expected, 1e-4)
    one_step = jaxai.is_cam(dense_net, small_images, TARGETS[:, 0], num_samples=1, **options)
    close(one_step, expected, 1e-4)
    quiet = jaxai.ss_cam(dense_net, small_images, TARGETS[:, 0], key=KEY, num_samples=1, noise=0.0, **options)
    close(quiet, expected, 1e-4)


def test_integrated_score_cam_averages_growing_masks(small_images):
    """On a model whose score is linear in the image, growing masks score (n + 1) / 2n of the full ones."""
    net = jaxai.chain({"conv": lambda x: jnp.abs(x[..., :2]), "sum": lambda x: x.sum((1, 2))})
    acts = np.abs(np.asarray(small_images[..., :2]))
    mask = acts - acts.min((1, 2), keepdims=True)
    mask = mask / mask.max((1, 2), keepdims=True)
    score = (np.abs(np.asarray(small_images))[..., :1] * mask).sum((1, 2)) * (4 + 1) / (2 * 4)
    weights = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    expected = (weights[:, None, None] * acts).sum(-1)
    found = jaxai.is_cam(net, small_images, 0, layer="conv", num_samples=4, relu=False, upsample=False)
    close(found, expected, 1e-4)


@pytest.mark.parametrize("gaussian", [True, False])
def test_recipro_cam_scores_positions_alone(gaussian, dense_net, small_images):
    acts = np.asarray(dense_net(small_images, stop="pool"))
    window = np.outer([1, 2, 1], [1, 2, 1]) / 16 if gaussian else np.outer([0, 1, 0], [0, 1, 0])
    expected = np.zeros(acts.shape[:3])
    for i in range(acts.shape[1]):
        for j in range(acts.shape[2]):
            padded = np.zeros((3, acts.shape[1] + 2, acts.shape[2] + 2, 6), np.float32)
            padded[:, i : i + 3, j : j + 3] = acts[:, i, j][:, None, None] * window[..., None]
            scores = jax.nn.softmax(dense_net(jnp.asarray(padded[:, 1:-1, 1:-1]), start="pool"))
            expected[:, i, j] = scores[jnp.arange(3), TARGETS[:, 0]]
    options = dict(layer="pool", upsample=False, gaussian=gaussian, batch_size=5)
    close(jaxai.recipro_cam(dense_net, small_images, TARGETS[:, 0], **options), expected)


def test_score_cam_holds_few_masked_images(pooled_net):
    images = jnp.zeros((2, 64, 64, 3))

    def peak(batch_size):
        program = jax.jit(lambda x: jaxai.score_cam(pooled_net, x, batch_size=batch_size))
        return program.lower(images).compile().memory_analysis().temp_size_in_bytes

    assert peak(2) < 0.5 * peak(12)
