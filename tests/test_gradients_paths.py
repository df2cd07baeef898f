"""Integrals of the gradient along paths: closed forms, the authors' paths in NumPy, completeness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, one_channel
from jax.tree_util import Partial

import jaxai
from jaxai.gradients._blur_integrated_gradients import blur

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])
REFERENCES = jnp.asarray(np.random.default_rng(5).normal(size=(4, 6, 8, 3)), "float32")


def quadratic(x):
    """Scores whose gradient is known: the sum of squares of each channel, weighted by position."""
    weights = jnp.arange(x.shape[1] * x.shape[2], dtype=x.dtype).reshape(x.shape[1:3])
    return jnp.einsum("hw,bhwc->bc", weights, x**2)


POSITIONS = np.arange(48.0).reshape(6, 8)


def test_saliency_and_its_product_in_closed_form(small_images):
    x = np.asarray(small_images)
    expected = one_channel(2 * POSITIONS[None, ..., None] * x, 1)
    close(jaxai.saliency(quadratic, small_images, 1), expected)
    close(jaxai.input_x_gradient(quadratic, small_images, 1), expected * x)


def test_integrated_gradients_in_closed_form(small_images):
    """Along a line, the integral of 2 w x is w (x^2 - b^2): two Gauss-Legendre nodes are exact."""
    x = np.asarray(small_images)
    for baseline in (0.0, 0.3, REFERENCES[0]):
        expected = one_channel(POSITIONS[None, ..., None] * (x**2 - np.asarray(baseline) ** 2), 2)
        found = jaxai.integrated_gradients(quadratic, small_images, 2, baseline=baseline, steps=2)
        close(found, expected)
        gap = jaxai.completeness_gap(quadratic, small_images, 2, attributions=found, baseline=baseline)
        assert np.abs(gap).max() < 1e-5 * np.abs(expected).sum()


def test_several_baselines_are_averaged(dense_net, small_images):
    options = dict(steps=4, batch_size=5)
    one, two = (
        jaxai.integrated_gradients(dense_net, small_images, 1, baseline=b, **options) for b in (-1.0, 1.0)
    )
    both = jaxai.integrated_gradients(dense_net, small_images, 1, baseline=[-1.0, 1.0], **options)
    close(both, (one + two) / 2)
    gaps = [
        jaxai.completeness_gap(dense_net, small_images, 1, attributions=a, baseline=b)
        for a, b in ((one, -1.0), (two, 1.0), (both, [-1.0, 1.0]))
    ]
    close(gaps[2], (gaps[0] + gaps[1]) / 2, 1e-4)


@pytest.mark.parametrize("method", ["riemann_left", "riemann_middle", "riemann_right", "trapezoid"])
def test_quadratures(method, small_images):
    """Of 2 w x from 0: left and right sums miss by one over the steps, the others are exact."""
    steps = 4
    found = jaxai.integrated_gradients(quadratic, small_images, 1, steps=steps, method=method)
    exact = one_channel(POSITIONS[None, ..., None] * np.asarray(small_images) ** 2, 1)
    factor = {"riemann_left": 1 - 1 / steps, "riemann_right": 1 + 1 / steps}.get(method, 1)
    close(found, exact * factor)
    nodes, weights = jaxai.gradients.path_nodes(steps, method=method)
    assert weights.sum() == pytest.approx(1) and nodes.min() >= 0 and nodes.max() <= 1


def test_adaptive_steps_go_where_the_score_changes():
    """A score that rises in a hundredth of the line: equal steps miss it, adaptive ones find it."""

    def step(x):
        return jax.nn.sigmoid(200 * (x.sum((1, 2, 3)) - 0.2))[:, None]

    x = jnp.full((1, 2, 2, 1), 0.25)
    gaps = {
        method: abs(
            float(
                jaxai.completeness_gap(
                    step,
                    x,
                    0,
                    attributions=jaxai.integrated_gradients(step, x, 0, steps=16, method=method),
                )[0]
            )
        )
        for method in ("adaptive", "riemann_middle", "gauss_legendre")
    }
    assert gaps["adaptive"] < 0.1 < gaps["riemann_middle"]
    assert gaps["adaptive"] < gaps["gauss_legendre"]


def test_completeness(dense_net, small_images):
    found = jaxai.integrated_gradients(dense_net, small_images, TARGETS, steps=300)
    gap = jaxai.completeness_gap(dense_net, small_images, TARGETS, attributions=found, batch_size=2)
    scores = np.asarray(dense_net(small_images))[np.arange(3)[:, None], TARGETS]
    start = np.asarray(dense_net(jnp.zeros_like(small_images)))[np.arange(3)[:, None], TARGETS]
    assert gap.shape == (3, 2) and np.abs(gap).max() < 0.01 * np.abs(scores - start).max()
    np.testing.assert_allclose(gap, np.asarray(found).sum((2, 3, 4)) - (scores - start), atol=1e-4)


@pytest.mark.slow
def test_gradient_shap_is_a_loop_over_random_points(dense_net, small_images):
    options = dict(baselines=REFERENCES, key=KEY, num_samples=4)
    found = jaxai.gradient_shap(
        dense_net, small_images, TARGETS[:, 0], noise=0.1, noise_unit="absolute", batch_size=5, **options
    )
    expected = np.zeros(small_images.shape)
    for index in range(4):
        keys = jax.random.split(jax.random.fold_in(KEY, index), 3)
        start = REFERENCES[jax.random.randint(keys[0], (), 0, 4)]
        noisy = small_images + 0.1 * jax.random.normal(keys[2], small_images.shape[1:])
        point = start + jax.random.uniform(keys[1]) * (noisy - start)
        grads = jaxai.saliency(dense_net, point, TARGETS[:, 0])
        expected += np.asarray((noisy - start) * grads) / 4
    close(found, expected)
    quiet = jaxai.gradient_shap(dense_net, small_images, TARGETS[:, 0], **options)
    close(jaxai.expected_gradients(dense_net, small_images, TARGETS[:, 0], **options), quiet)


@pytest.mark.slow
def test_expected_gradients_add_up_in_expectation(dense_net, small_images):
    found = jaxai.expected_gradients(
        dense_net, small_images, 1, baselines=REFERENCES, key=KEY, num_samples=2000, batch_size=600
    )
    expected = dense_net(small_images)[:, 1] - dense_net(REFERENCES)[:, 1].mean()
    assert np.abs(np.asarray(found).sum((1, 2, 3)) - expected).max() < 0.05 * np.abs(expected).max()


def test_blur_equals_scipy(small_images):
    from scipy.ndimage import gaussian_filter

    image = np.asarray(small_images[0])
    for sigma in (0.0, 0.1, 0.7, 2.0, 5.0):
        expected = image if sigma == 0 else gaussian_filter(image, [sigma, sigma, 0], mode="constant")
        close(blur(small_images[0], jnp.float32(sigma), taps=21), expected)


@pytest.mark.parametrize("spacing", ["linear", "sqrt"])
def test_blur_integrated_gradients_as_pair_defines_them(spacing, dense_net, small_images):
    from scipy.ndimage import gaussian_filter

    def blurred(sigma):
        x = np.asarray(small_images[:1], np.float64)
        return x if sigma == 0 else gaussian_filter(x, [0, sigma, sigma, 0], mode="constant")

    steps, top, width = 6, 4.0, 0.2
    sigmas = np.arange(steps + 1) / steps * top
    sigmas = np.sqrt(sigmas) if spacing == "sqrt" else sigmas
    expected = np.zeros(small_images[:1].shape)
    for low, high in zip(sigmas[:-1], sigmas[1:], strict=True):
        point = blurred(low)
        change = (blurred(low + width) - point) / width
        grads = jaxai.saliency(dense_net, jnp.asarray(point, jnp.float32), 1)
        expected -= (high - low) * change * np.asarray(grads)
    found = jaxai.blur_integrated_gradients(
        dense_net, small_images[:1], 1, max_sigma=top, steps=steps, grad_step=width, spacing=spacing
    )
    close(found, expected, 1e-4)


@pytest.mark.slow
def test_blur_integrated_gradients_add_up(pooled_net, small_images):
    """With the exact derivative of the blur, the sum is the score minus the blurred score."""
    found = jaxai.blur_integrated_gradients(
        pooled_net, small_images, 1, max_sigma=2.0, steps=400, grad_step=None, batch_size=600
    )
    ends = jax.vmap(lambda image: blur(image, jnp.float32(2.0), taps=9))(small_images)
    expected = np.asarray(pooled_net(small_images) - pooled_net(ends))[:, 1]
    assert np.abs(np.asarray(found).sum((1, 2, 3)) - expected).max() < 0.05 * np.abs(expected).max()


def guided_path(grad, image, start, steps, fraction, distance):
    """Guided integrated gradients of one image by the authors' procedure, values moved group by group."""
    x, total = start.copy(), np.zeros_like(image)
    whole = np.abs(image - start).sum()
    for step in range(1, steps + 1):
        actual = grad(x)
        rank = np.abs(actual)
        position = step / steps
        low = start + max(position - distance, 0) * (image - start)
        high = start + min(position + distance, 1) * (image - start)
        target = whole * (1 - position)
        gamma = np.inf
        while gamma > 1:
            before = x.copy()
            behind = np.abs(image - x) > np.abs(image - low)
            x[behind] = low[behind]
            left = np.abs(image - x).sum()
            if np.isclose(left, target, rtol=1e-9, atol=1e-9):
                total += (x - before) * actual
                break
            rank[x == high] = np.inf
            chosen = (rank <= np.quantile(rank, fraction, method="lower")) & (rank != np.inf)
            room = np.abs(x - high)[chosen].sum()
            gamma = (left - target) / room if room > 0 else np.inf
            x[chosen] = high[chosen] if gamma > 1 else (x + gamma * (high - x))[chosen]
            total += (x - before) * actual
    return total


@pytest.mark.parametrize("distance", [0.02, 0.3, 1.0])
def test_guided_integrated_gradients_follow_the_authors_path(distance):
    """On a smooth score of float64, so that both take the same path to the last step."""
    weights = np.random.default_rng(7).normal(size=(5, 4, 3))
    image = np.random.default_rng(8).normal(size=(5, 4, 3))

    def grad(x):
        return np.cos(x * weights) * weights + 2 * x

    def score(weights, x):
        return (jnp.sin(x * weights) + x**2).sum((1, 2, 3))[:, None]

    expected = guided_path(grad, image, np.zeros_like(image), 20, 0.25, distance)
    found = jaxai.guided_integrated_gradients(
        Partial(score, jnp.asarray(weights, jnp.float32)),
        jnp.asarray(image[None], jnp.float32),
        0,
        steps=20,
        max_distance=distance,
    )
    close(found[0], expected, 1e-3)


def test_guided_without_freedom_is_integrated_gradients(dense_net, small_images):
    found = jaxai.guided_integrated_gradients(dense_net, small_images, 1, steps=20, max_distance=0.0)
    plain = jaxai.integrated_gradients(dense_net, small_images, 1, steps=20, method="riemann_left")
    close(found, plain, 1e-4)
