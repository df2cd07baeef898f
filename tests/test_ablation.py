import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.perturbation import detection_similarity

GOLDENS = Path(__file__).parent / "goldens"
TOYS = runpy.run_path(str(GOLDENS / "toy_game.py"))
KEY = jax.random.key(0)


def toy_model(x):
    first, second = TOYS["toy_parameters"]()
    return jnp.tanh(x.reshape(len(x), -1) @ first) @ second


def small_batch():
    images = jax.random.uniform(jax.random.key(3), (3, 6, 10, 3))
    labels = [jaxai.perturbation._segments.grid((6, 10), *g) for g in ((2, 3), (2, 2), (1, 5))]
    return images, jnp.stack(labels)


def model(x):
    return jnp.stack([jnp.sin(3 * x).mean((1, 2, 3)), x[:, :3, :4].mean((1, 2, 3))], axis=1)


def test_ablation_is_captums():
    golden = np.load(GOLDENS / "perturbation.npz")
    drops = jaxai.feature_ablation(
        toy_model, TOYS["toy_image"]()[None], 1, segments=TOYS["toy_segments"]()[None]
    )
    np.testing.assert_allclose(drops.heatmap[0], golden["captum_ablation"], atol=1e-5)


def test_ablation_of_batches():
    images, labels = small_batch()
    both = jaxai.feature_ablation(model, images, jnp.array([[0, 1]] * 3), segments=labels, fill="mean")
    assert both.values.shape == (3, 2, 6) and both.heatmap.shape == (3, 2, 6, 10)
    alone = jaxai.feature_ablation(model, images[1:2], 1, segments=labels[1:2], fill="mean", batch_size=2)
    np.testing.assert_allclose(both.values[1, 1, :4], alone.values[0], atol=1e-6)
    assert (both.values[1, :, 4:] == 0).all()
    jitted = jax.jit(
        lambda x, s: jaxai.feature_ablation(model, x, 1, segments=s, fill="mean", num_segments=6)
    )
    np.testing.assert_allclose(jitted(images, labels).values, both.values[:, 1], atol=1e-6)


def test_permutation_takes_from_the_others():
    images, labels = small_batch()
    drops = jaxai.feature_permutation(model, images, 1, segments=labels[0], key=KEY)
    values, scores = np.asarray(drops.values), np.asarray(model(images))[:, 1]
    # What one image loses another one gains; the model's second score looks at two superpixels.
    np.testing.assert_allclose(values.sum(0), 0, atol=1e-6)
    assert (np.abs(values[:, 2:]).max(0) < 1e-6).all() and np.abs(values[:, 0]).min() > 1e-5
    inside = np.asarray(labels[0] == 0)[..., None]
    circles = [np.where(inside, np.roll(images, shift, 0), images) for shift in (1, 2)]
    expected = [scores - np.asarray(model(x))[:, 1] for x in circles]
    assert any(np.allclose(values[:, 0], e, atol=1e-5) for e in expected)
    again = jaxai.feature_permutation(model, images, 1, segments=labels[0], key=KEY, batch_size=4)
    np.testing.assert_allclose(again.values, values, atol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        jaxai.feature_permutation(model, images[:1], segments=labels[:1], key=KEY)


def test_detection_similarity_by_hand():
    target = detection_similarity([0.0, 0.0, 4.0, 2.0], [0.6, 0.8])
    proposals = jnp.array(
        [
            [[0, 0, 4, 2, 0.5, 0.6, 0.8], [2, 0, 6, 2, 1.0, 0.6, 0.8]],
            [[10, 10, 12, 12, 1.0, 0.6, 0.8], [0, 0, 4, 2, 0.9, 1.0, 0.0]],
        ]
    )
    # 1 x 0.5 x 1 beats 4 / 12 x 1 x 1; 1 x 0.9 x 0.6.
    np.testing.assert_allclose(target(proposals), [0.5, 0.54], rtol=1e-5)
    assert float(target(jnp.zeros((1, 2, 7)))[0]) == 0
    with pytest.raises(ValueError, match="with an area"):
        detection_similarity([0, 0, 0, 2], [1.0])
    with pytest.raises(ValueError, match="proposals"):
        target(jnp.zeros((1, 2, 6)))
    with pytest.raises(ValueError, match="`box` must be"):
        detection_similarity([0, 0, 1], [1.0])


def test_d_rise_finds_the_object():
    """A detector that is as sure of its box as the region is bright."""

    def detector(x):
        sure = x[:, 2:6, 10:14].mean((1, 2, 3))
        fixed = jnp.array([10.0, 2, 14, 6])
        box = jnp.broadcast_to(fixed, (len(x), 4))
        return jnp.concatenate([box, sure[:, None], jnp.ones((len(x), 1))], axis=1)[:, None]

    target = detection_similarity([10, 2, 14, 6], [1.0])
    found = jaxai.rise(detector, jnp.ones((1, 12, 20, 3)), target, key=KEY, num_masks=600, grid=(3, 5))
    assert found[0, 2:6, 10:14].mean() > 1.1 * found[0].mean()
