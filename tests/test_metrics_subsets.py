"""Faithfulness over subsets and regions: against loops in NumPy, closed forms of linear models, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai import metrics
from jaxai.metrics import _infidelity, _statistics

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 6, 8)).astype(np.float32)
SEGMENTS = np.stack([np.arange(48).reshape(6, 8) // size for size in (6, 8, 12)])


def linear_model(weights, x):
    return jnp.einsum("nhwc,hwck->nk", x, weights, precision="highest")


WEIGHTS = jnp.asarray(RNG.normal(size=(6, 8, 3, 4)), jnp.float32)
LINEAR = Partial(linear_model, WEIGHTS)


def logits(net, image):
    return np.asarray(net(jnp.asarray(image, jnp.float32)[None])[0], np.float64)


def drop(net, image, hidden, target, fill=0.0):
    changed = np.where(hidden[..., None], fill, image)
    return logits(net, image)[target] - logits(net, changed)[target]


def subsets(samples, sizes, units, present=None):
    """Return the subsets that are drawn, bool [sizes, samples, units]."""
    numbers = np.stack([jax.random.bits(jax.random.fold_in(KEY, i), (units,)) for i in range(samples)])
    if present is not None:
        numbers = np.where(present, numbers, np.uint32(0xFFFFFFFF))
    order = np.argsort(numbers, axis=1, kind="stable").argsort(1)
    return np.stack([order < size for size in sizes])


@pytest.mark.slow
def test_sensitivity_n_against_a_loop(dense_net, small_images):
    sizes = (2, 7, 30)
    run = {"key": KEY, "sizes": sizes, "num_samples": 12}
    found = metrics.sensitivity_n(dense_net, small_images, MAPS, 3, batch_size=5, **run)
    assert found.shape == (3, 3)
    drawn = subsets(12, sizes, 48).reshape(3, 12, 6, 8)
    assert (drawn.sum((2, 3)) == np.array(sizes)[:, None]).all()
    for i in range(3):
        image = np.asarray(small_images[i])
        for n in range(3):
            sums = [MAPS[i][mask].sum() for mask in drawn[n]]
            drops = [drop(dense_net, image, mask, 3) for mask in drawn[n]]
            assert found[i, n] == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-4)
    both = metrics.sensitivity_n(
        dense_net, small_images, np.stack([MAPS, -MAPS], 1), jnp.array([[3, 1]] * 3), **run
    )
    assert both.shape == (3, 2, 3)
    close(both[:, 0], found, 1e-4)


@pytest.mark.slow
def test_subsets_of_superpixels(dense_net, small_images):
    run = {"key": KEY, "subset_size": 2, "num_samples": 20, "segments": SEGMENTS}
    found = metrics.faithfulness_correlation(dense_net, small_images, MAPS, 3, fill=0.5, **run)
    for i in range(3):
        number = SEGMENTS[i].max() + 1
        (drawn,) = subsets(20, (2,), 8, np.arange(8) < number)
        masks = [np.isin(SEGMENTS[i], np.flatnonzero(row)) for row in drawn]
        assert all(len(np.unique(SEGMENTS[i][mask])) == 2 for mask in masks)
        sums = np.array([MAPS[i][mask].sum() for mask in masks])
        drops = np.array([drop(dense_net, np.asarray(small_images[i]), mask, 3, 0.5) for mask in masks])
        assert found.correlation[i] == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-4)
        without = [np.corrcoef(np.delete(sums, j), np.delete(drops, j))[0, 1] for j in range(20)]
        error = np.sqrt(19 / 20 * ((without - np.mean(without)) ** 2).sum())
        assert found.standard_error[i] == pytest.approx(error, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", [jaxai.input_x_gradient, jaxai.integrated_gradients])
def test_exact_maps_of_linear_models(method, small_images):
    maps = method(LINEAR, small_images, 2)
    found = metrics.sensitivity_n(LINEAR, small_images, maps, 2, key=KEY, num_samples=20)
    assert found.shape == (3, 9)
    np.testing.assert_allclose(found, 1, atol=1e-4)
    sure = metrics.faithfulness_correlation(LINEAR, small_images, maps, 2, key=KEY, subset_size=0.5)
    np.testing.assert_allclose(sure.correlation, 1, atol=1e-4)
    np.testing.assert_allclose(sure.standard_error, 0, atol=1e-4)
    np.testing.assert_allclose(metrics.infidelity(LINEAR, small_images, maps, 2, key=KEY), 0, atol=1e-8)
    estimate = metrics.faithfulness_estimate(LINEAR, small_images, maps, 2, probability=False)
    np.testing.assert_allclose(estimate, 1, atol=1e-4)


@pytest.mark.slow
def test_infidelity_is_zero_at_the_maps_own_baseline_alone(small_images):
    baseline = jnp.asarray(RNG.normal(size=(6, 8, 3)), jnp.float32)
    maps = jaxai.integrated_gradients(LINEAR, small_images, 2, baseline=baseline)
    run = {"key": KEY, "num_samples": 20}
    assert np.abs(metrics.infidelity(LINEAR, small_images, maps, 2, fill=baseline, **run)).max() < 1e-8
    other = metrics.infidelity(LINEAR, small_images, maps, 2, fill=0.0, **run)
    scaled = metrics.infidelity(LINEAR, small_images, 3 * maps, 2, fill=baseline, **run)
    assert other.min() > 0.1 and scaled.min() > 0.1
    fitted = metrics.infidelity(LINEAR, small_images, 3 * maps, 2, fill=baseline, normalize=True, **run)
    assert np.abs(fitted).max() < 1e-8


@pytest.mark.slow
def test_infidelity_against_a_loop(dense_net, small_images):
    masks = np.asarray(_infidelity._rectangles((6, 8), None, KEY, (None, jnp.arange(30))))
    assert masks.any((1, 2)).all() and masks.any(2).sum(1).max() <= 3 and masks.any(1).sum(1).max() <= 4
    assert len(np.unique(masks.sum((1, 2)))) > 5
    found = metrics.infidelity(dense_net, small_images, MAPS, 3, key=KEY, num_samples=30, batch_size=7)
    fitted = metrics.infidelity(dense_net, small_images, MAPS, 3, key=KEY, num_samples=30, normalize=True)
    for i in range(3):
        said = np.array([MAPS[i][mask].sum() for mask in masks])
        fall = np.array([drop(dense_net, np.asarray(small_images[i]), mask, 3) for mask in masks])
        assert found[i] == pytest.approx(np.mean((said - fall) ** 2), rel=1e-3)
        factor = np.mean(said * fall) / np.mean(said**2)
        assert fitted[i] == pytest.approx(np.mean((factor * said - fall) ** 2), rel=1e-3)
    fixed = np.asarray(_infidelity._rectangles((6, 8), (2, 5), KEY, (None, jnp.arange(9))))
    assert (fixed.sum((1, 2)) == 10).all()


def noise(key, image):
    return 0.1 * jax.random.normal(key, image.shape)


@pytest.mark.slow
def test_infidelity_of_a_perturbation_of_ones_own(dense_net, small_images):
    gradients = jaxai.saliency(LINEAR, small_images, jnp.array([[0, 2]] * 3))
    run = {"key": KEY, "perturb": noise, "num_samples": 6}
    exact = metrics.infidelity(LINEAR, small_images, gradients, jnp.array([[0, 2]] * 3), **run)
    assert exact.shape == (3, 2) and np.abs(exact).max() < 1e-8
    found = metrics.infidelity(dense_net, small_images, MAPS, 1, **run)
    moved = [np.asarray(noise(jax.random.fold_in(KEY, i), small_images[0])) for i in range(6)]
    for i in range(3):
        image = np.asarray(small_images[i])
        said = [(MAPS[i][..., None] * d).sum() for d in moved]
        fall = [logits(dense_net, image)[1] - logits(dense_net, image - d)[1] for d in moved]
        assert found[i] == pytest.approx(np.mean((np.array(said) - fall) ** 2), rel=1e-3)
    with pytest.raises(ValueError, match=r"`perturb` must return .*\(6, 8, 3\); got \(6, 8\)"):
        metrics.infidelity(dense_net, small_images, MAPS, 1, key=KEY, perturb=lambda k, x: x[..., 0])


@pytest.mark.slow
def test_chance_and_noise():
    images = jnp.asarray(RNG.normal(size=(60, 6, 8, 3)), jnp.float32)
    truth = np.asarray((images * WEIGHTS[..., 2]).sum(-1))
    random = RNG.normal(size=truth.shape)
    run = {"key": KEY, "num_samples": 30}
    for metric in (
        partial(metrics.sensitivity_n, sizes=(8,), **run),
        lambda *a: metrics.faithfulness_correlation(*a, subset_size=8, **run).correlation,
        partial(metrics.faithfulness_estimate, probability=False),
    ):
        chance = np.asarray(metric(LINEAR, images, random, 2)).ravel()
        assert abs(chance.mean()) < 3 * chance.std() / np.sqrt(len(chance))
        means = [metric(LINEAR, images, truth + s * random, 2).mean() for s in (0, 0.5, 1, 2, 100)]
        assert (np.diff(means) < 0).all(), means
    means = [
        metrics.infidelity(LINEAR, images, truth + s * random, 2, normalize=True, **run).mean()
        for s in (0, 0.5, 1, 2, 100)
    ]
    assert (np.diff(means) > 0).all(), means


@pytest.mark.slow
def test_faithfulness_estimate_and_monotonicity(dense_net, small_images):
    run = {"segments": SEGMENTS, "fill": 0.25, "probability": False}
    found = metrics.faithfulness_estimate(dense_net, small_images, MAPS, 2, **run)
    kept = metrics.monotonicity(dense_net, small_images, MAPS, 2, **run)
    for i in range(3):
        image, labels = np.asarray(small_images[i]), SEGMENTS[i]
        masks = [labels == label for label in range(labels.max() + 1)]
        sums = [MAPS[i][mask].sum() for mask in masks]
        drops = [drop(dense_net, image, mask, 2, 0.25) for mask in masks]
        assert found[i] == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-4)
        shown, values = np.zeros((6, 8), bool), []
        values.append(logits(dense_net, np.full_like(image, 0.25))[2])
        for j in np.argsort([MAPS[i][mask].mean() for mask in masks], kind="stable"):
            shown |= masks[j]
            values.append(logits(dense_net, np.where(shown[..., None], image, 0.25))[2])
        assert kept[i] == pytest.approx(np.mean(np.diff(values) >= 0), abs=1e-6)
    positive = jnp.abs(small_images)
    rising = metrics.monotonicity(lambda x: x.mean((1, 2)), positive, positive, lambda s: s[:, 0])
    np.testing.assert_array_equal(rising, 1)


@pytest.mark.slow
def test_monotonicity_correlation(dense_net, small_images):
    labels = np.kron(np.arange(6).reshape(2, 3), np.ones((3, 3), int))[:, :8]
    run = {"key": KEY, "segments": labels, "num_samples": 3, "probability": False}
    found = metrics.monotonicity_correlation(dense_net, small_images, MAPS, 2, **run)
    for i in range(3):
        image, squares = np.asarray(small_images[i]), []
        low, high = image.min((0, 1)), image.max((0, 1))
        drawn = [np.asarray(jax.random.uniform(jax.random.fold_in(KEY, s), image.shape)) for s in range(3)]
        for label in range(6):
            falls = [
                drop(dense_net, image, labels == label, 2, low + (high - low) * numbers) for numbers in drawn
            ]
            squares.append(np.mean(np.square(falls)))
        sums = [abs(MAPS[i][labels == label].sum()) for label in range(6)]
        assert found[i] == pytest.approx(scipy.stats.spearmanr(sums, squares)[0], abs=1e-5)


def test_average_drop(dense_net, small_images):
    found = metrics.average_drop(dense_net, small_images, MAPS, 1, fill=0.1)
    for i in range(3):
        mask = (MAPS[i] - MAPS[i].min()) / (MAPS[i].max() - MAPS[i].min())
        image = np.asarray(small_images[i])
        changed = mask[..., None] * image + (1 - mask[..., None]) * 0.1
        p, o = (float(jax.nn.softmax(logits(dense_net, x))[1]) for x in (image, changed))
        assert found.drop[i] == pytest.approx(max(0, p - o) / p, abs=1e-4)
        assert found.increase[i] == (o > p)
        assert found.gain[i] == pytest.approx(max(0, o - p) / (1 - p), abs=1e-4)
    with pytest.raises(ValueError, match="a map is a matter of degree"):
        metrics.average_drop(dense_net, small_images, MAPS, 1, fill="linear")


def test_sufficiency():
    def model(x):
        return x.mean((1, 2))

    images = jnp.asarray(np.eye(2)[[0, 0, 1, 1, 0]], jnp.float32).reshape(5, 1, 1, 2)
    images = jnp.broadcast_to(images, (5, 2, 2, 2))
    a, b, c = np.array([[1.0, 0], [0, 0]]), np.array([[0, 1.0], [0, 0]]), np.array([[0, 0], [0, 1.0]])
    found = metrics.sufficiency(model, images, np.stack([a, a, a + 0.01, b, c]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0, np.nan, np.nan])


def test_ranks_are_scipys_with_equal_values_zeros_of_both_signs_and_infinities():
    rng = np.random.default_rng(5)
    values = np.concatenate(
        [rng.normal(size=40), rng.integers(-3, 4, 40), [0.0, -0.0, np.inf, -np.inf, 1e38]]
    )
    values = rng.permuted(np.stack([values, -values, 1e-30 * values]).astype(np.float32), axis=1)
    found = _statistics.ranks(jnp.asarray(values).reshape(3, 1, -1))
    np.testing.assert_array_equal(found[:, 0] + 1, scipy.stats.rankdata(values, axis=1))


def test_statistics_against_scipy():
    x, y = RNG.normal(size=(2, 3, 20))
    y[0, :5] = y[0, 0]
    for i in range(3):
        assert float(_statistics.pearson(x, y)[i]) == pytest.approx(np.corrcoef(x[i], y[i])[0, 1], abs=1e-6)
        expected = scipy.stats.spearmanr(x[i], y[i])[0]
        assert float(_statistics.spearman(jnp.asarray(x), jnp.asarray(y))[i]) == pytest.approx(
            expected, abs=1e-6
        )
    assert np.isnan(_statistics.pearson(x[0], np.ones(20)))


@pytest.mark.slow
def test_chunks_jit_vmap_and_memory(dense_net, small_images):
    def run(x, m, **options):
        return metrics.sensitivity_n(dense_net, x, m, 1, key=KEY, sizes=(3, 20), num_samples=8, **options)

    whole = run(small_images, MAPS)
    close(run(small_images, MAPS, batch_size=3), whole, 1e-3)
    close(jax.jit(run)(small_images, MAPS), whole, 1e-3)
    close(jax.vmap(lambda x, m: run(x[None], m[None])[0])(small_images, MAPS), whole, 1e-3)
    close(run(small_images[1:2], MAPS[1:2]), whole[1:2], 1e-3)

    def peak(samples):
        call = jax.jit(
            lambda x, m: metrics.infidelity(dense_net, x, m, 1, key=KEY, num_samples=samples, batch_size=4)
        )
        return call.lower(small_images, MAPS).compile().memory_analysis().temp_size_in_bytes

    assert peak(2000) - peak(20) < 2000 * small_images[0].nbytes / 10


def test_errors(dense_net, small_images):
    run = partial(metrics.sensitivity_n, dense_net, small_images, MAPS, 1, key=KEY)
    with pytest.raises(ValueError, match="`sizes` must be less than the 48 pixels"):
        run(sizes=(3, 48))
    with pytest.raises(ValueError, match="`sizes` must be a positive integer; got 0"):
        run(sizes=(0,))
    with pytest.raises(ValueError, match="`sizes` must hold at least one"):
        run(sizes=())
    with pytest.raises(ValueError, match="less than the 4 pixels or superpixels"):
        run(sizes=(4,), segments=SEGMENTS)
    with pytest.raises(ValueError, match="`num_samples` must be an integer of at least 2"):
        run(num_samples=1)
    with pytest.raises(ValueError, match=r"`subset_size` must be a number in \(0, 1\)"):
        metrics.faithfulness_correlation(dense_net, small_images, MAPS, 1, key=KEY, subset_size=1.5)
    with pytest.raises(ValueError, match="`window` must fit into the image"):
        metrics.infidelity(dense_net, small_images, MAPS, 1, key=KEY, window=7)
    with pytest.raises(ValueError, match="`segments` must be as many in every image"):
        metrics.monotonicity_correlation(dense_net, small_images, MAPS, key=KEY, segments=SEGMENTS)
    with pytest.raises(ValueError, match=r"`similarity` must be a number in \[-1, 1\]"):
        metrics.sufficiency(dense_net, small_images, MAPS, similarity=2)
