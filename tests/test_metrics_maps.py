"""Complexity and localization: against NumPy and SciPy, chance levels, the ground truth, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from sklearn.metrics import roc_auc_score

from jaxai import metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(4, 20, 30)).astype(np.float32)
MASKS = np.zeros((4, 20, 30), bool)
MASKS[0, 2:9, 3:20] = MASKS[1, 15:, 25:] = MASKS[2, :, :15] = MASKS[3, 7, 7] = True
LOCALIZATION = {
    "pointing_game": partial(metrics.pointing_game, tolerance=2),
    "mass_accuracy": metrics.mass_accuracy,
    "rank_accuracy": metrics.rank_accuracy,
    "top_k_intersection": partial(metrics.top_k_intersection, k=20),
    "iou": metrics.iou,
    "iou of a share": partial(metrics.iou, share=0.1),
    "auc": metrics.auc,
    "focus": metrics.focus,
}


def chance(metric, masks):
    if isinstance(metric, partial):
        return metrics.chance(metric.func, masks, **metric.keywords)
    return metrics.chance(metric, masks)


def by_loops(name, values, mask):
    """Write each metric down again in NumPy."""
    order = np.argsort(-values.ravel(), kind="stable")
    inside = mask.ravel()[order]
    if name == "pointing_game":
        return float((scipy.ndimage.distance_transform_edt(~mask) <= 2).ravel()[order[0]])
    if name in ("mass_accuracy", "focus"):
        return np.maximum(values, 0)[mask].sum() / np.maximum(values, 0).sum()
    if name == "rank_accuracy":
        return inside[: mask.sum()].mean()
    if name == "top_k_intersection":
        return inside[:20].mean()
    if name == "auc":
        return roc_auc_score(mask.ravel(), values.ravel())
    number = 60 if "share" in name else mask.sum()
    relevant = np.zeros(values.size, bool)
    relevant[order[:number]] = True
    return (relevant & mask.ravel()).sum() / (relevant | mask.ravel()).sum()


@pytest.mark.parametrize("name", LOCALIZATION)
def test_localization_against_numpy(name):
    for maps in (MAPS, MAPS.round(0)):
        found = LOCALIZATION[name](maps, MASKS)
        expected = [by_loops(name, maps[i], MASKS[i]) for i in range(4)]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", LOCALIZATION)
def test_random_maps_score_chance(name):
    rng = np.random.default_rng(1)
    masks = np.repeat(MASKS[:1], 400, axis=0)
    found = np.asarray(LOCALIZATION[name](rng.random((400, 20, 30)), masks))
    level = float(chance(LOCALIZATION[name], MASKS)[0])
    assert 0 < level < 1 and abs(found.mean() - level) < 3 * found.std() / np.sqrt(400)


@pytest.mark.sampled
@pytest.mark.parametrize("name", LOCALIZATION)
def test_the_truth_is_best_and_noise_is_worse(name):
    truth = MASKS[:3].astype(np.float32)
    best = np.asarray(LOCALIZATION[name](truth, MASKS[:3]))
    assert name == "iou of a share" or (best == 1).all()
    rng, means = np.random.default_rng(2), []
    masks = np.repeat(MASKS[:1], 200, axis=0)
    noise = rng.random((200, 20, 30))
    for strength in (0, 1.2, 2, 5, 5000):
        means.append(float(LOCALIZATION[name](masks + strength * noise, masks).mean()))
    assert (np.diff(means) <= 1e-6).all() and means[-1] < means[0] - 0.1, means


def test_mosaics():
    images = jnp.broadcast_to(jnp.arange(4.0).reshape(1, 4, 1, 1, 1), (50, 4, 2, 3, 1))
    whole, first, second = metrics.mosaics(images[:, :2], images[:, 2:], key=jax.random.key(0))
    assert whole.shape == (50, 4, 6, 1) and first.shape == (50, 4, 6)
    np.testing.assert_array_equal(first, whole[..., 0] < 2)
    np.testing.assert_array_equal(second, whole[..., 0] >= 2)
    for image in np.asarray(whole[..., 0]):
        assert sorted(image[::2, ::3].ravel()) == [0, 1, 2, 3]
    assert len({tuple(image[::2, ::3].ravel()) for image in np.asarray(whole[..., 0])}) > 10
    np.testing.assert_allclose(metrics.focus(np.ones((50, 4, 6)), first), 0.5)
    with pytest.raises(ValueError, match="`first` and `second` must be"):
        metrics.mosaics(images[:, :1], images[:, 1:], key=jax.random.key(0))


def gini_by_differences(values):
    """The index as the mean absolute difference of all pairs, by half of the mean."""
    size = np.abs(values.ravel()).astype(np.float64)
    return np.abs(size[:, None] - size).mean() / (2 * size.mean())


def test_complexity_against_numpy():
    for i in range(4):
        size = np.abs(MAPS[i]).astype(np.float64)
        share = (size / size.sum()).ravel()
        assert float(metrics.gini(MAPS)[i]) == pytest.approx(gini_by_differences(MAPS[i]), abs=1e-5)
        assert float(metrics.entropy(MAPS)[i]) == pytest.approx(-(share * np.log(share)).sum(), rel=1e-5)
        above = (size > 0.3 * size.max()).mean()
        assert float(metrics.effective_complexity(MAPS, share=0.3)[i]) == pytest.approx(above)
    split = np.stack([MAPS, MAPS, -MAPS], axis=-1)
    np.testing.assert_allclose(metrics.gini(split), metrics.gini(MAPS), atol=1e-6)
    np.testing.assert_allclose(jax.jit(metrics.entropy)(MAPS), metrics.entropy(MAPS), rtol=1e-6)
    one = np.zeros((1, 20, 30))
    one[0, 3, 4] = -2
    assert metrics.gini(one)[0] == pytest.approx(1 - 1 / 600) and metrics.entropy(one)[0] == 0
    flat = np.full((1, 20, 30), 3.0)
    assert metrics.gini(flat)[0] == pytest.approx(0, abs=1e-5)
    assert metrics.entropy(flat)[0] == pytest.approx(np.log(600), rel=1e-5)
    for metric in (metrics.gini, metrics.entropy, metrics.effective_complexity):
        assert np.isnan(metric(0 * flat)[0])


def test_constant_maps():
    flat = np.ones((4, 20, 30))
    for name, metric in LOCALIZATION.items():
        if name in ("mass_accuracy", "focus"):
            np.testing.assert_allclose(metric(flat, MASKS), MASKS.mean((1, 2)), rtol=1e-5)
            assert np.isnan(metric(-flat, MASKS)).all()
        elif name == "auc":
            np.testing.assert_allclose(metric(flat, MASKS), 0.5)
        else:
            with pytest.warns(UserWarning, match=r"the map of image 0 \(and 3 more\) is constant"):
                assert np.isnan(metric(flat, MASKS)).all()
    assert np.isnan(metrics.auc(MAPS, np.ones((20, 30)))).all()


@pytest.mark.parametrize("name", LOCALIZATION)
def test_bad_masks_and_maps(name):
    metric = LOCALIZATION[name]
    with pytest.raises(ValueError, match=r"`masks` must fit the maps, shape \(4, 20, 30\)"):
        metric(MAPS, MASKS[:, :5])
    with pytest.raises(ValueError, match="that of image 1 is empty"):
        metric(MAPS, MASKS & (np.arange(4) != 1)[:, None, None])
    with pytest.raises(ValueError, match="`masks` must be 0 and 1; got values from 0 to 3"):
        metric(MAPS, 3 * MASKS.astype(int))
    with pytest.raises(TypeError, match="`masks` must be bool"):
        metric(MAPS, MASKS.astype(str))
    bad = MAPS.copy()
    bad[2, 1, 1] = np.inf
    with pytest.raises(ValueError, match="that of image 2 has NaN or infinite"):
        metric(bad, MASKS)
    with pytest.raises(ValueError, match=r"looks like \[batch, k, height, width\]"):
        metric(MAPS[:, None], MASKS)
    with pytest.raises(ValueError, match=r"got shape \(20, 30\)"):
        metric(MAPS[0], MASKS)


def test_other_errors():
    with pytest.raises(ValueError, match="`k` must be at most the 600 pixels"):
        metrics.top_k_intersection(MAPS, MASKS)
    with pytest.raises(ValueError, match=r"`share` must be a number in \(0, 1\]"):
        metrics.iou(MAPS, MASKS, share=0)
    with pytest.raises(ValueError, match=r"`tolerance` must be a number in \[0, inf\]"):
        metrics.pointing_game(MAPS, MASKS, tolerance=-1)
    with pytest.raises(ValueError, match="`metric` must be one of pointing_game, .* got gini"):
        metrics.chance(metrics.gini, MASKS)
    with pytest.raises(ValueError, match=r"`masks` must be \[batch, height, width\]"):
        metrics.chance(metrics.auc, MASKS[0])
    with pytest.raises(ValueError, match=r"`share` must be a number in \[0, 1\)"):
        metrics.effective_complexity(MAPS, share=1)
