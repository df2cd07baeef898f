"""Gradient methods on small networks: closed forms, NumPy re-implementations, axioms, batches, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from jax.tree_util import Partial

import jaxai
from jaxai import gradients

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])
REFERENCES = jnp.asarray(np.random.default_rng(5).normal(size=(4, 6, 8, 3)), "float32")
REGIONS = np.random.default_rng(6).random((1, 7, 6, 8)) > 0.6
LAYERED = dict(layer="conv1")
METHODS = {
    "blur_integrated_gradients": partial(jaxai.blur_integrated_gradients, steps=5, max_sigma=3.0),
    "conductance": partial(jaxai.conductance, layer="conv1", steps=5),
    "expected_gradients": partial(jaxai.expected_gradients, baselines=REFERENCES, key=KEY, num_samples=5),
    "full_grad": jaxai.full_grad,
    "gradient_shap": partial(jaxai.gradient_shap, baselines=REFERENCES, key=KEY, num_samples=5, noise=0.1),
    "guided_integrated_gradients": partial(jaxai.guided_integrated_gradients, steps=5),
    "input_x_gradient": jaxai.input_x_gradient,
    "integrated_gradients": partial(jaxai.integrated_gradients, steps=5, baseline=[-1.0, 1.0]),
    "internal_influence": partial(jaxai.internal_influence, layer="conv1", steps=5),
    "layer_gradients": partial(jaxai.layer_gradients, layer="conv1"),
    "layer_integrated_gradients": partial(jaxai.layer_integrated_gradients, layer="conv1", steps=5),
    "saliency": jaxai.saliency,
    "smooth_grad": partial(jaxai.smooth_grad, key=KEY, num_samples=5),
    "smooth_grad_squared": partial(jaxai.smooth_grad_squared, key=KEY, num_samples=5),
    "var_grad": partial(jaxai.var_grad, key=KEY, num_samples=5),
    "xrai": partial(jaxai.xrai, steps=5, min_pixels=2),
}
NOT_METHODS = {
    "FullGradients",
    "Moments",
    "completeness_gap",
    "forgrad",
    "full_gradients",
    "path_nodes",
    "rank_regions",
    "smooth",
    "smooth_moments",
    "xrai_regions",
}


def run(name, net, images, targets, **options):
    if name == "xrai":
        options["regions"] = jnp.repeat(jnp.asarray(REGIONS), len(images), axis=0)
    return METHODS[name](net, images, targets, **options)


def test_every_method_is_tested_here():
    assert set(gradients.__all__) == set(METHODS) | NOT_METHODS


def noise(index, images):
    return jax.random.normal(jax.random.fold_in(KEY, index), images.shape[1:])


@pytest.mark.slow
def test_smoothing_is_a_loop_over_noisy_images(dense_net, small_images):
    x = np.asarray(small_images)
    sigma = 0.2 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))[:, None, None, None]
    grads = np.stack(
        [jaxai.saliency(dense_net, small_images + sigma * noise(i, x), TARGETS) for i in range(4)]
    )
    options = dict(key=KEY, num_samples=4, noise=0.2, batch_size=5)
    close(jaxai.smooth_grad(dense_net, small_images, TARGETS, **options), grads.mean(0))
    close(jaxai.smooth_grad_squared(dense_net, small_images, TARGETS, **options), (grads**2).mean(0))
    close(jaxai.var_grad(dense_net, small_images, TARGETS, **options), grads.var(0), 1e-4)
    moments = jaxai.gradients.smooth_moments(jaxai.saliency, dense_net, small_images, TARGETS, **options)
    close(moments.standard_error, grads.std(0, ddof=1) / 2, 1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_a_small_variance_survives_a_large_mean(batch_size):
    """Of 1000 + x + noise: the mean square less the squared mean would lose all of it in float32."""

    def steep(x):
        return (1000 * x + x**2 / 2).sum((1, 2))

    x = jnp.zeros((1, 5, 6, 1))
    draws = np.stack([noise(i, x) for i in range(10)]) / 10
    options = dict(key=KEY, num_samples=10, noise=0.1, noise_unit="absolute", batch_size=batch_size)
    found = jaxai.var_grad(steep, x, 0, **options)
    np.testing.assert_allclose(found[0], draws.var(0), rtol=0.01)
    np.testing.assert_allclose(jaxai.smooth_grad(steep, x, 0, **options)[0], 1000 + draws.mean(0), rtol=1e-6)


def test_any_method_can_be_smoothed(dense_net, small_images):
    maps = np.stack(
        [
            jaxai.grad_cam(dense_net, small_images + 0.3 * noise(i, small_images), TARGETS, layer="pool")
            for i in range(3)
        ]
    )
    options = dict(key=KEY, num_samples=3, noise=0.3, noise_unit="absolute", layer="pool")
    close(jaxai.gradients.smooth(jaxai.grad_cam, dense_net, small_images, TARGETS, **options), maps.mean(0))
    found = jaxai.gradients.smooth(
        jaxai.grad_cam, dense_net, small_images, TARGETS, statistic="mean_square", **options
    )
    close(found, (maps**2).mean(0))


def test_standard_error_is_the_spread_over_keys():
    def cubic(x):
        return (x**3).sum((1, 2))

    x = jnp.ones((1, 8, 8, 1))
    options = dict(num_samples=30, noise=0.5, noise_unit="absolute")
    moments = [
        jaxai.gradients.smooth_moments(jaxai.saliency, cubic, x, 0, key=jax.random.key(seed), **options)
        for seed in range(20)
    ]
    spread = np.std([m.mean for m in moments], axis=0, ddof=1).mean()
    predicted = np.mean([m.standard_error for m in moments])
    assert predicted == pytest.approx(spread, rel=0.1)
    # E (3 (1 + s z)^2) = 3 (1 + s^2)
    assert np.mean([m.mean for m in moments]) == pytest.approx(3 * 1.25, rel=0.02)


def ranked(values, masks, fewest):
    """XRAI of one image, by sets of pixels."""
    shown, out = np.zeros(values.shape, bool), np.zeros(values.shape)
    left = list(masks)
    while True:
        left = [m for m in left if (m & ~shown).sum() >= fewest]
        if not left:
            break
        gains = [values[m & ~shown].mean() for m in left]
        best = int(np.argmax(gains))
        out[left[best] & ~shown] = gains[best]
        shown |= left.pop(best)
    if not shown.all():
        out[~shown] = values[~shown].mean()
    return out


def test_regions_are_ranked_as_the_authors_do():
    rng = np.random.default_rng(9)
    values = rng.normal(size=(2, 3, 10, 12))
    masks = rng.random((2, 8, 10, 12)) > 0.7
    masks[:, -1] = False
    found = jaxai.gradients.rank_regions(jnp.asarray(values, jnp.float32), jnp.asarray(masks), min_pixels=4)
    for n in range(2):
        for k in range(3):
            close(found[n, k], ranked(values[n, k], masks[n], 4))
    close(np.asarray(found).sum((2, 3)), values.sum((2, 3)), 1e-5)


@pytest.mark.slow
def test_xrai_averages_two_extreme_baselines(dense_net, small_images):
    regions = jnp.asarray(np.random.default_rng(10).random((3, 5, 6, 8)) > 0.5)
    low, high = (getattr(small_images, m)((1, 2, 3), keepdims=True) for m in ("min", "max"))
    integrated = [
        jaxai.integrated_gradients(dense_net, small_images, 1, baseline=b, steps=6) for b in (low, high)
    ]
    expected = jaxai.gradients.rank_regions(sum(integrated).max(-1) / 2, regions, min_pixels=3)
    close(jaxai.xrai(dense_net, small_images, 1, regions=regions, steps=6, min_pixels=3), expected, 1e-4)
    own = jnp.asarray(jaxai.gradients.xrai_regions(small_images))
    expected = jaxai.xrai(dense_net, small_images, 1, regions=own, steps=6, min_pixels=3)
    close(jaxai.xrai(dense_net, small_images, 1, steps=6, min_pixels=3), expected, 1e-6)


def test_regions_of_photos(photos):
    from skimage.segmentation import felzenszwalb

    pair = np.stack([photos["cat"][:64, :80], photos["coffee"][:64, :80]])
    regions = jaxai.gradients.xrai_regions(pair, scales=(100, 500), dilation=0)
    scaled = (pair[0] - pair[0].min()) / np.ptp(pair[0].astype(float)) * 2 - 1
    labels = [felzenszwalb(scaled, scale=s, sigma=0.8, min_size=150) for s in (100, 500)]
    counts = [label.max() + 1 for label in labels]
    assert regions.dtype == bool and regions.shape[2:] == (64, 80)
    assert (regions[0].sum((1, 2)) > 0).sum() == sum(counts)
    np.testing.assert_array_equal(regions[0, counts[0]], labels[1] == 0)
    assert jaxai.gradients.xrai_regions(pair[:1], scales=(100,)).sum() > regions[0, : counts[0]].sum()
    with pytest.raises(ValueError, match="photos"):
        jaxai.gradients.xrai_regions(pair[0])


def test_low_pass_filter():
    """Waves within the circle of frequencies stay, others vanish; signs and means stay."""
    rows, columns = np.indices((12, 16))
    slow = np.cos(2 * np.pi * (2 * rows / 12 + columns / 16)) - 0.25
    fast = np.sin(2 * np.pi * (3 * rows / 12 + 2 * columns / 16))
    maps = jnp.asarray(np.stack([slow + fast, 2 * slow]), jnp.float32)
    close(jaxai.forgrad(maps, cutoff=3.0), np.stack([slow, 2 * slow]))
    close(jaxai.forgrad(maps, cutoff=20.0), maps)
    assert jaxai.forgrad(jnp.ones((5, 7)), cutoff=1.0).shape == (5, 7)
    with pytest.raises(ValueError, match="cutoff"):
        jaxai.forgrad(maps, cutoff=0.0)
    with pytest.raises(ValueError, match="maps"):
        jaxai.forgrad(jnp.ones(5))


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_images_alone(name, dense_net, small_images):
    """Two targets an image in chunks of two images, against one image with one target under jit."""
    together = run(name, dense_net, small_images, TARGETS, batch_size=2)
    assert together.shape[:2] == (3, 2)
    alone = jax.jit(lambda x, t: run(name, dense_net, x, t))(small_images[1:2], TARGETS[1:2, 1])
    close(together[1:2, 1], alone, 1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
def test_a_flat_image_has_finite_maps_and_gradients(name, dense_net):
    @jax.jit
    @jax.value_and_grad
    def total(x):
        return jnp.sum(run(name, dense_net, x, 1) ** 2)

    if name == "xrai":
        # Regions are chosen in a loop of unknown length, which has no pullback; its maps are all there is.
        assert np.isfinite(run(name, dense_net, jnp.zeros((1, 6, 8, 3)), 1)).all()
        return
    for image in (jnp.full((1, 6, 8, 3), 0.5), jnp.zeros((1, 6, 8, 3))):
        value, gradient = total(image)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_vmap(dense_net, small_images):
    classes = TARGETS[:, 0]
    for method in (jaxai.saliency, partial(jaxai.integrated_gradients, steps=3)):
        mapped = jax.vmap(lambda x, t, m=method: m(dense_net, x[None], t[None])[0])(small_images, classes)
        close(mapped, method(dense_net, small_images, classes))


@pytest.mark.slow
def test_the_top_class_of_the_image_itself_is_the_default(dense_net, small_images):
    top = jnp.argmax(dense_net(small_images), -1)
    for name in ("integrated_gradients", "smooth_grad", "conductance"):
        close(run(name, dense_net, small_images, None), run(name, dense_net, small_images, top))


@pytest.mark.slow
def test_a_network_can_be_trained_on_its_saliency(pooled_net, small_images):
    leaves, tree = jax.tree.flatten(pooled_net)

    @jax.jit
    @jax.value_and_grad
    def loss(leaves):
        model = jax.tree.unflatten(tree, leaves)
        maps = jaxai.integrated_gradients(model, small_images, 1, steps=2)
        return jnp.mean(maps[:, :, 4:] ** 2) / jnp.mean(maps**2)

    first, _ = loss(leaves)
    for _ in range(20):
        value, grads = loss(leaves)
        leaves = [leaf - 0.05 * g for leaf, g in zip(leaves, grads, strict=True)]
    assert value < 0.9 * first


def test_equal_calls_share_a_program(dense_net, small_images):
    traces = []

    def counted(x):
        traces.append(x.shape)
        return dense_net(x)

    model = Partial(counted)
    for method in (
        jaxai.saliency,
        partial(jaxai.integrated_gradients, steps=3),
        partial(jaxai.blur_integrated_gradients, steps=3),
        lambda *a: jaxai.smooth_grad(*a, key=KEY, num_samples=2),
        jaxai.full_grad,
    ):
        method(model, small_images, 1)
        before = len(traces)
        for seed in range(3):
            method(model, small_images + seed, seed)
        assert len(traces) == before


def test_batch_size_bounds_memory(pooled_net):
    images = jnp.zeros((2, 64, 64, 3))

    def peak(batch_size):
        program = jax.jit(
            lambda x: jaxai.integrated_gradients(pooled_net, x, steps=32, batch_size=batch_size)
        )
        return program.lower(images).compile().memory_analysis().temp_size_in_bytes

    assert peak(4) < 0.25 * peak(64)


def test_maps_depend_on_the_weights(dense_net, small_images):
    leaves, tree = jax.tree.flatten(dense_net)
    keys = jax.random.split(KEY, len(leaves))
    fresh = [0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    head = jax.tree.unflatten(tree, leaves[:2] + fresh[2:])
    for name in ("saliency", "integrated_gradients", "smooth_grad"):
        before, after = (
            np.asarray(run(name, net, small_images, TARGETS[:, 0])).ravel() for net in (dense_net, head)
        )
        assert np.corrcoef(before, after)[0, 1] < 0.8, name


def test_errors(dense_net, small_images):
    cases = [
        (ValueError, "`baseline` must broadcast", dict(baseline=jnp.zeros(5))),
        (ValueError, "empty list", dict(baseline=[])),
        (ValueError, "`steps` must be a positive integer; got 0", dict(steps=0)),
        (ValueError, "`method` must be one of", dict(method="simpson")),
        (ValueError, "at least 2", dict(method="trapezoid", steps=1)),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            jaxai.integrated_gradients(dense_net, small_images, 0, **options)
    with pytest.raises(ValueError, match="`attributions` must be"):
        jaxai.completeness_gap(dense_net, small_images, TARGETS, attributions=small_images)
    with pytest.raises(ValueError, match="`noise_unit` must be one of range, absolute; got 'pixels'"):
        jaxai.smooth_grad(dense_net, small_images, key=KEY, noise_unit="pixels")
    with pytest.raises(ValueError, match="`noise` must not be negative"):
        jaxai.smooth_grad(dense_net, small_images, key=KEY, noise=-1.0)
    with pytest.raises(ValueError, match="`statistic` must be one of"):
        jaxai.gradients.smooth(jaxai.saliency, dense_net, small_images, key=KEY, statistic="median")
    with pytest.raises(TypeError, match="hashable"):
        jaxai.gradients.smooth(jaxai.grad_cam, dense_net, small_images, key=KEY, layer=["conv1"])
    with pytest.raises(TypeError, match="typed key"):
        jaxai.smooth_grad(dense_net, small_images, key=3)
    with pytest.raises(ValueError, match="`baselines` must be images of shape"):
        jaxai.expected_gradients(dense_net, small_images, baselines=REFERENCES[:, :2], key=KEY)
    with pytest.raises(ValueError, match="`regions` must be"):
        jaxai.xrai(dense_net, small_images, regions=REGIONS)
    with pytest.raises(TypeError, match="`regions` must be given under jit"):
        jax.jit(lambda x: jaxai.xrai(dense_net, x))(small_images)
    with pytest.raises(ValueError, match="`baseline` must be one of extremes"):
        jaxai.xrai(dense_net, small_images, regions=REGIONS, baseline="black")
    with pytest.raises(ValueError, match="`fraction`"):
        jaxai.guided_integrated_gradients(dense_net, small_images, fraction=0.0)
    with pytest.raises(ValueError, match="`max_distance`"):
        jaxai.guided_integrated_gradients(dense_net, small_images, max_distance=2.0)
    with pytest.raises(ValueError, match="`max_sigma` must be positive"):
        jaxai.blur_integrated_gradients(dense_net, small_images, max_sigma=0.0)
    with pytest.raises(ValueError, match="`rule` must be one of"):
        jaxai.conductance(dense_net, small_images, layer="conv1", rule="right")
    with pytest.raises(ValueError, match="unknown layer"):
        jaxai.layer_gradients(dense_net, small_images, layer="conv7")
    with pytest.raises(TypeError, match="floating point"):
        jaxai.saliency(dense_net, np.zeros((1, 6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[batch, height, width, channels\]; got shape \(6, 8, 3\)"):
        jaxai.saliency(dense_net, small_images[0])
