"""Faithfulness by removal: against loops in NumPy, closed forms of linear models, and bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai import metrics
from jaxai.metrics import _imputers, _linear

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 6, 8)).astype(np.float32)
SEGMENTS = np.stack([np.arange(48).reshape(6, 8) // size for size in (6, 8, 12)])


def probabilities(net, images):
    return np.asarray(jax.nn.softmax(net(jnp.asarray(images, jnp.float32)), axis=-1), np.float64)


def loop(net, image, background, groups, points, target, reveal=False):
    """Remove (or show) groups of pixels, masks bool [height, width] in order, one after the other."""
    found = []
    for count in points:
        changed = np.array(background if reveal else image)
        for group in groups[:count]:
            changed[group] = (image if reveal else background)[group]
        found.append(probabilities(net, changed[None])[0, target])
    return np.array(found)


def pixels_in_order(values, least_first=False):
    order = np.argsort(-values.ravel(), kind="stable")
    masks = np.zeros((values.size, values.size), bool)
    masks[np.arange(values.size), order[::-1] if least_first else order] = True
    return masks.reshape(-1, *values.shape)


def segments_in_order(values, labels):
    means = [values[labels == label].mean() for label in range(labels.max() + 1)]
    return [labels == label for label in np.argsort(-np.array(means), kind="stable")]


def linear_model(weights, x):
    return jnp.einsum("nhwc,hwc->n", x, weights, precision="highest")[:, None]


def trapezoids(curve, share):
    return np.trapezoid(curve, share)


@pytest.mark.sampled
@pytest.mark.parametrize("reveal", [False, True])
def test_curves_against_a_loop(dense_net, small_images, reveal):
    metric = metrics.insertion if reveal else metrics.deletion
    found = metric(dense_net, small_images, MAPS, jnp.array([1, 4, 0]), steps=7, fill="mean", batch_size=5)
    points = [step * 48 // 7 for step in range(8)]
    for i, target in enumerate((1, 4, 0)):
        image = np.asarray(small_images[i])
        mean = np.broadcast_to(image.mean((0, 1)), image.shape)
        expected = loop(dense_net, image, mean, pixels_in_order(MAPS[i]), points, target, reveal)
        close(found.curve[i], expected)
        close(found.share[i], np.array(points) / 48)
        close(found.area[i], trapezoids(expected, np.array(points) / 48))


def test_superpixels_of_unequal_number(dense_net, small_images):
    found = metrics.deletion(dense_net, small_images, MAPS, 2, segments=SEGMENTS, fill=0.25)
    assert found.curve.shape == (3, 9)
    for i in range(3):
        groups = segments_in_order(MAPS[i], SEGMENTS[i])
        points = [step * len(groups) // 8 for step in range(9)]
        image = np.asarray(small_images[i])
        expected = loop(dense_net, image, np.full_like(image, 0.25), groups, points, 2)
        close(found.curve[i], expected)
        once = loop(dense_net, image, np.full_like(image, 0.25), groups, range(len(groups) + 1), 2)
        close(found.area[i], trapezoids(once, np.linspace(0, 1, len(groups) + 1)))


def test_relevance_gain_is_the_difference_of_two_orders(dense_net, small_images):
    found = metrics.relevance_gain(dense_net, small_images, MAPS, 3, steps=12)
    most = metrics.deletion(dense_net, small_images, MAPS, 3, steps=12)
    least = metrics.deletion(dense_net, small_images, -MAPS, 3, steps=12)
    close(found.most_first, most.curve)
    close(found.least_first, least.curve)
    close(found.gain, least.area - most.area)
    shares = [step * 48 // 12 for step in range(13)]
    image = np.asarray(small_images[1])
    mean = np.broadcast_to(image.mean((0, 1)), image.shape)
    groups = pixels_in_order(MAPS[1], least_first=True)
    close(found.least_first[1], loop(dense_net, image, mean, groups, shares, 3))


@pytest.mark.slow
def test_targets_and_channels(dense_net, small_images):
    classes = jnp.array([[0, 5], [2, 1], [6, 3]])
    maps = RNG.normal(size=(3, 2, 6, 8)).astype(np.float32)
    both = metrics.relevance_gain(dense_net, small_images, maps, classes, steps=6)
    assert both.gain.shape == (3, 2) and both.most_first.shape == (3, 2, 7) and both.share.shape == (3, 7)
    for k in range(2):
        one = metrics.relevance_gain(dense_net, small_images, maps[:, k], classes[:, k], steps=6)
        close(both.gain[:, k], one.gain)
        close(both.least_first[:, k], one.least_first)
    split = np.stack([maps, 0.5 * maps, -0.5 * maps], axis=-1)
    close(metrics.relevance_gain(dense_net, small_images, split, classes, steps=6).gain, both.gain)
    top = np.asarray(dense_net(small_images)).argmax(-1)
    none = metrics.deletion(dense_net, small_images, MAPS, steps=6)
    close(none.curve, metrics.deletion(dense_net, small_images, MAPS, top, steps=6).curve)
    value = metrics.deletion(dense_net, small_images, MAPS, lambda s: s[:, 2], steps=6)
    close(value.curve[:, 0], dense_net(small_images)[:, 2])
    raw = metrics.deletion(dense_net, small_images, MAPS, 2, steps=6, probability=False)
    close(raw.curve, value.curve)


@pytest.mark.slow
def test_chunks_jit_vmap_and_alone(dense_net, small_images):
    def gain(x, m, **options):
        return metrics.relevance_gain(dense_net, x, m, 1, steps=6, **options).gain

    whole = gain(small_images, MAPS)
    close(gain(small_images, MAPS, batch_size=4), whole, 1e-4)
    close(jax.jit(gain)(small_images, MAPS), whole, 1e-4)
    close(jax.vmap(lambda x, m: gain(x[None], m[None])[0])(small_images, MAPS), whole, 1e-4)
    close(gain(small_images[1:2], MAPS[1:2]), whole[1:2], 1e-4)


def test_memory_does_not_grow_with_steps(dense_net, small_images):
    def peak(steps):
        def run(x, m):
            return metrics.relevance_gain(dense_net, x, m, 1, steps=steps, batch_size=4).gain

        return jax.jit(run).lower(small_images, MAPS).compile().memory_analysis().temp_size_in_bytes

    assert peak(48) - peak(6) < 48 * small_images[0].nbytes


def test_linear_models_reach_the_optimum():
    """Input x gradient and integrated gradients order the pixels of a linear model best of all orders."""
    weights = jnp.asarray(RNG.normal(size=(2, 3, 2)), jnp.float32)
    image = jnp.asarray(RNG.normal(size=(1, 2, 3, 2)), jnp.float32)
    model = Partial(linear_model, weights)
    best = -np.inf
    orders = np.array(list(itertools.permutations(range(6))), np.float32).reshape(-1, 1, 2, 3)
    share = np.asarray((weights * image[0]).sum(-1)).ravel()
    for order in orders:
        gone = np.concatenate([[0], np.cumsum(share[np.argsort(-order.ravel())])])
        back = np.concatenate([[0], np.cumsum(share[np.argsort(order.ravel())])])
        best = max(best, np.trapezoid(gone - back, np.linspace(0, 1, 7)))
    for method in (jaxai.input_x_gradient, jaxai.integrated_gradients):
        maps = method(model, image, 0)
        found = metrics.relevance_gain(model, image, maps, lambda s: s[:, 0], steps=6, fill=0.0)
        assert float(found.gain[0]) == pytest.approx(best, rel=1e-5)


def test_a_random_map_gains_nothing(pooled_net):
    images = jnp.asarray(RNG.normal(size=(60, 6, 8, 3)), jnp.float32)
    maps = RNG.normal(size=(60, 6, 8))
    gain = np.asarray(metrics.relevance_gain(pooled_net, images, maps, 2, steps=12).gain)
    assert abs(gain.mean()) < 3 * gain.std() / np.sqrt(60)


@pytest.mark.slow
def test_noisier_maps_are_worse():
    weights = jnp.asarray(RNG.normal(size=(12, 12, 1)), jnp.float32)
    images = jnp.asarray(RNG.normal(size=(40, 12, 12, 1)), jnp.float32)
    truth = np.asarray((weights * images).sum(-1))
    noise = RNG.normal(size=truth.shape)
    model = Partial(linear_model, weights)
    means = {"gain": [], "deletion": [], "insertion": []}
    for strength in (0, 0.5, 1, 2, 4, 100):
        arguments = (model, images, truth + strength * noise, lambda s: s[:, 0])
        means["gain"].append(metrics.relevance_gain(*arguments, fill=0.0).gain.mean())
        means["deletion"].append(-metrics.deletion(*arguments, fill=0.0).area.mean())
        means["insertion"].append(metrics.insertion(*arguments, fill=0.0).area.mean())
    for name, found in means.items():
        assert (np.diff(found) < 0).all(), (name, found)


@pytest.mark.slow
def test_variants(dense_net, small_images):
    image = np.asarray(small_images)
    flipped = metrics.pixel_flipping(dense_net, small_images, MAPS, 1, steps=8)
    alike = metrics.deletion(dense_net, small_images, MAPS, 1, steps=8, fill=0, probability=False)
    close(flipped.curve, alike.curve)
    found = metrics.selectivity(dense_net, small_images, MAPS, 1, window=(2, 4), probability=True)
    labels = np.kron(np.arange(6).reshape(3, 2), np.ones((2, 4), int))
    expected = loop(dense_net, image[0], 0 * image[0], segments_in_order(MAPS[0], labels), range(7), 1)
    close(found.curve[0], expected)
    close(found.area[0], trapezoids(expected, np.linspace(0, 1, 7)))
    run = {"key": KEY, "window": 2, "steps": 5, "fill": 0.5, "probability": True}
    found = metrics.region_perturbation(dense_net, small_images, MAPS, 1, **run)
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((2, 2), int))
    background = np.full_like(image[2], 0.5)
    expected = loop(dense_net, image[2], background, segments_in_order(MAPS[2], labels), range(6), 1)
    close(found.curve[2], expected)
    close(found.area[2], np.mean(expected[0] - expected))
    least = metrics.region_perturbation(dense_net, small_images, MAPS, 1, least_first=True, **run)
    opposite = segments_in_order(MAPS[2], labels)[::-1]
    close(least.curve[2], loop(dense_net, image[2], background, opposite, range(6), 1))


def test_irof(dense_net, small_images):
    found = metrics.irof(dense_net, small_images, MAPS, 4, segments=SEGMENTS)
    for i in range(3):
        image, groups = np.asarray(small_images[i]), segments_in_order(MAPS[i], SEGMENTS[i])
        mean = np.broadcast_to(image.mean((0, 1)), image.shape)
        expected = loop(dense_net, image, mean, groups, range(len(groups) + 1), 4)
        ratio = expected / expected[0]
        close(found.area[i], 1 - trapezoids(ratio, np.linspace(0, 1, len(ratio))))
    assert np.allclose(found.curve[:, 0], 1)


def neighbours_by_sparse_solve(image, hidden):
    """Solve the system of the paper with SciPy."""
    height, width, channels = image.shape
    number = -np.ones((height, width), int)
    number[hidden] = np.arange(hidden.sum())
    matrix, right = scipy.sparse.lil_matrix((hidden.sum(), hidden.sum())), np.zeros((hidden.sum(), channels))
    for row, column in np.argwhere(hidden):
        i = number[row, column]
        for down, across in itertools.product((-1, 0, 1), repeat=2):
            r, c = row + down, column + across
            if (down or across) and 0 <= r < height and 0 <= c < width:
                weight = 1 / 6 if abs(down) + abs(across) == 1 else 1 / 12
                matrix[i, i] += weight
                if hidden[r, c]:
                    matrix[i, number[r, c]] -= weight
                else:
                    right[i] += weight * image[r, c]
    out = image.copy()
    out[hidden] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right).reshape(-1, channels)
    return out


@pytest.mark.sampled
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, "hole"])
@pytest.mark.slow
def test_linear_imputation_against_scipy(share):
    image = RNG.random((2, 21, 30, 3)).astype(np.float32)
    hidden = RNG.random((2, 21, 30)) < (share if share != "hole" else 0.3)
    if share == "hole":
        hidden[0, 2:19, 3:28] = True
    found = metrics.linear(jnp.asarray(image), jnp.asarray(hidden))
    for i in range(2):
        expected = neighbours_by_sparse_solve(image[i].astype(np.float64), hidden[i])
        np.testing.assert_allclose(found[i], expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found)[~hidden], image[~hidden])


@pytest.mark.slow
def test_holes_of_any_size_take_few_iterations():
    image = jnp.asarray(RNG.random((1, 100, 130, 1)), jnp.float32)
    hole = np.zeros((3, 100, 130), bool)
    hole[0, 3:97, 3:120] = True
    hole[1] = ~hole[0]
    hole[2] = RNG.random((100, 130)) < 0.5
    counts = [int(_linear._solve(image, jnp.asarray(h[None]), 1e-6, 300)[1]) for h in hole]
    assert max(counts) < 60, counts


@pytest.mark.slow
def test_linear_imputation_of_nothing_and_of_all():
    image = jnp.asarray(RNG.random((1, 5, 7, 2)), jnp.float32)
    np.testing.assert_array_equal(metrics.linear(image, jnp.zeros((1, 5, 7))), image)
    everything = metrics.linear(image, jnp.ones((1, 5, 7)))
    some = jnp.asarray(RNG.random((2, 5, 7)) < 0.5)
    both = jnp.concatenate([image, image + 1])
    close(jax.vmap(lambda x, h: metrics.linear(x[None], h[None])[0])(both, some), metrics.linear(both, some))
    close(everything, jnp.broadcast_to(image.mean((1, 2), keepdims=True), image.shape))


def test_road(dense_net, small_images):
    found = metrics.road(dense_net, small_images, MAPS, 3, key=KEY, shares=(0.25, 0.5), noise=0.0)
    noisy = metrics.road(dense_net, small_images, MAPS, 3, key=KEY, shares=(0.25, 0.5))
    top = np.asarray(dense_net(small_images)).argmax(-1)
    for i in range(3):
        for order, values, right in (
            (False, found.most_first, found.most_first_right),
            (True, found.least_first, found.least_first_right),
        ):
            for j, count in enumerate((12, 24)):
                hidden = pixels_in_order(MAPS[i], order)[:count].any(0)
                changed = neighbours_by_sparse_solve(np.asarray(small_images[i], np.float64), hidden)
                expected = probabilities(dense_net, changed[None])[0]
                np.testing.assert_allclose(values[i, j], expected[3], atol=1e-4)
                assert right[i, j] == (expected.argmax() == 3)
    close(found.gain, (found.least_first - found.most_first).mean(-1))
    apart = np.abs(noisy.most_first - found.most_first)
    assert 0 < apart.max() < 0.02
    kept = metrics.road(dense_net, small_images, MAPS, key=KEY, shares=(0.02,), noise=0.0)
    assert set(np.unique(kept.most_first_right)) <= {0, 1} and (top >= 0).all()
    value = metrics.road(dense_net, small_images, MAPS, lambda s: s[:, 0], key=KEY, shares=(0.5,))
    assert np.isnan(value.most_first_right).all() and np.isfinite(value.gain).all()
    # 0.29 of 100 pixels is 29 of them, although 0.29 * 100 is less in floating point.
    image, last = jnp.ones((1, 10, 10, 1)), jnp.arange(100.0).reshape(1, 10, 10)
    found = metrics.road(
        lambda x: x.sum((1, 2)), image, last, 0, key=KEY, fill=0, shares=(0.29,), probability=False
    )
    assert found.most_first.tolist() == [[71.0]] and found.share.tolist() == [pytest.approx(0.29)]


@pytest.mark.slow
def test_fills():
    image = jnp.asarray(RNG.random((2, 24, 30, 3)), jnp.float32)
    dirac = np.zeros((11, 11))
    dirac[5, 5] = 1
    kernel = scipy.ndimage.gaussian_filter(dirac, 5)
    blurred = _imputers.imputer("rise_blur", image).background
    for i, c in itertools.product(range(2), range(3)):
        expected = scipy.ndimage.convolve(np.asarray(image[i, :, :, c]), kernel, mode="constant")
        np.testing.assert_allclose(blurred[i, :, :, c], expected, atol=1e-5)
    noise = np.asarray(_imputers.imputer("uniform", image, key=KEY).background)
    low, high = np.asarray(image.min((1, 2))), np.asarray(image.max((1, 2)))
    assert (noise.min((1, 2)) >= low).all() and (noise.max((1, 2)) <= high).all() and noise.std() > 0.2
    close(_imputers.imputer("mean", image).background[:, 0, 0], image.mean((1, 2)))
    labels = jnp.broadcast_to(jnp.arange(30) // 10, (2, 24, 30))
    own = _imputers.imputer("segment_mean", image, labels=labels, count=3).background
    close(own[0, 3, 12], image[0, :, 10:20].mean((0, 1)))
    beside = _imputers.imputer("neighbours", image, labels=labels, count=3).background
    close(beside[0, 3, 5], image[0, :, 10:20].mean((0, 1)))
    score = lambda s: s[:, 0]  # noqa: E731
    other = metrics.deletion(lambda x: x.mean((1, 2)), image, image, score, steps=4, fill=image[::-1])
    close(other.curve[:, -1], image[::-1].mean((1, 2))[:, 0])


@pytest.mark.slow
def test_black_boxes(dense_net, small_images):
    box = jaxai.perturbation.black_box(lambda x: np.asarray(dense_net(jnp.asarray(x))))
    found = metrics.road(box, small_images, MAPS, key=KEY, shares=(0.3, 0.6))
    expected = metrics.road(dense_net, small_images, MAPS, key=KEY, shares=(0.3, 0.6))
    for a, b in zip(found, expected, strict=True):
        close(a, b)


def test_constant_maps_are_nan(dense_net, small_images):
    maps = MAPS.copy()
    maps[1] = 0.5
    with pytest.warns(UserWarning, match="the map of image 1 is constant"):
        found = metrics.relevance_gain(dense_net, small_images, maps, 1, steps=4)
    assert np.isnan(found.gain).tolist() == [False, True, False]


def test_errors(dense_net, small_images):
    def run(maps=MAPS, targets=1, **options):
        return metrics.deletion(dense_net, small_images, maps, targets, **options)

    for maps in (MAPS[:, :3], MAPS[:2], MAPS[:, None], MAPS[0]):
        with pytest.raises(ValueError, match=r"`maps` must be .*\(3, 6, 8\)"):
            run(maps)
    with pytest.raises(ValueError, match="upsample"):
        run(MAPS[:, :, :4])
    with pytest.raises(ValueError, match=r"\[batch, k, height, width\], \(3, 2, 6, 8\)"):
        run(MAPS, jnp.array([[0, 1]] * 3))
    bad = MAPS.copy()
    bad[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`maps` must be finite; that of image 2"):
        run(bad)
    with pytest.raises(TypeError, match="real numbers; got complex64"):
        run(MAPS.astype(np.complex64))
    with pytest.raises(ValueError, match="classes 0 to 6; got 7"):
        run(targets=7)
    with pytest.raises(ValueError, match="`steps` must be at most 48"):
        run(steps=49)
    with pytest.raises(ValueError, match="`steps` must be a positive integer; got 0"):
        run(steps=0)
    with pytest.raises(ValueError, match="`fill` must be a value or one of mean, segment_mean"):
        run(fill="median")
    with pytest.raises(ValueError, match="needs superpixels, `segments=`"):
        run(fill="neighbours")
    with pytest.raises(TypeError, match="needs a `key`"):
        run(fill="uniform")
    with pytest.raises(ValueError, match="`segments` must have shape"):
        run(segments=SEGMENTS[:, :2])
    with pytest.raises(ValueError, match="NaN or infinite scores"):
        metrics.deletion(lambda x: jnp.log(-jnp.abs(x.mean((1, 2))) - 1), small_images, MAPS, 1, steps=4)
    with pytest.raises(ValueError, match=r"`shares` must be a number in \(0, 1\); got 1.0"):
        metrics.road(dense_net, small_images, MAPS, key=KEY, shares=(1.0,))
    with pytest.raises(TypeError, match="typed key"):
        metrics.road(dense_net, small_images, MAPS, key=0)
    with pytest.raises(ValueError, match="`window` must be smaller than the image"):
        metrics.selectivity(dense_net, small_images, MAPS, window=9)
