import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai

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


@pytest.mark.slow
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


@pytest.mark.slow
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
