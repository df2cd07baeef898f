"""How often the truth lies within two standard errors of LIME's and KernelSHAP's values."""

import itertools
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import slow_but

import jaxai

COUNT = 10
COEFFICIENTS = np.array([0.5, 0.3, -0.2] + [0.02] * (COUNT - 3), np.float32)
IMAGE, SEGMENTS = jnp.ones((1, 1, COUNT, 1)), np.arange(COUNT)[None, None]
EVERY = np.array(list(itertools.product((0, 1), repeat=COUNT)), np.float32)


def additive(x):
    return x[:, 0, :, 0] @ COEFFICIENTS


def interacting(x):
    z = x[:, 0, :, 0]
    return z @ COEFFICIENTS + 0.4 * z[:, 0] * z[:, 1] - 0.3 * z[:, 2] * z[:, 5] * z[:, 6]


def saturating(x):
    return jax.nn.sigmoid(6 * additive(x) - 1.5)


def first(scores):
    return scores[:, 0]


def runs(method, model, keys, **options):
    """Return values and standard errors [keys, superpixels] of a method."""

    @jax.jit
    def run(key):
        found = method(
            lambda x: model(x)[:, None],
            IMAGE,
            first,
            segments=SEGMENTS,
            num_segments=COUNT,
            key=key,
            fill=0.0,
            **options,
        )
        return (found.weights if method is jaxai.lime else found.values)[0], found.standard_error[0]

    return [np.asarray(x) for x in jax.lax.map(run, jax.random.split(jax.random.key(1), keys))]


def lime_truth(model):
    return np.asarray(jaxai.perturbation.lime_limit(EVERY, model(EVERY[:, None, :, None])).weights)


def shapley_truth(model):
    values = np.asarray(model(EVERY[:, None, :, None]), np.float64)
    size = EVERY.sum(1).astype(int)
    orders = [factorial(k) * factorial(COUNT - 1 - k) / factorial(COUNT) for k in range(COUNT)] + [0.0]
    joined, left = np.array(orders)[size - 1], np.array(orders)[size]
    return (np.where(EVERY, joined[:, None], -left[:, None]) * values[:, None]).sum(0)


def check(values, errors, truth, *, covered):
    # Rounding apart, which the standard error does not cover.
    off = np.abs(values - truth)
    assert ((off <= 2 * errors + 2e-5).mean(0) >= covered).all()
    claimed, actual = (np.sqrt(np.mean(x**2, axis=0)) for x in (errors, off))
    assert (claimed <= 3 * actual + 2e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [100, 300, 1000])
@pytest.mark.parametrize("sampling", ["lime", "paired", "stratified", "glime", "uniform"])
@pytest.mark.parametrize("model", [additive, interacting, saturating])
def test_lime(model, sampling, samples):
    values, errors = runs(jaxai.lime, model, 200, num_samples=samples, sampling=sampling)
    check(values, errors, lime_truth(model), covered=0.9)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [100, 300])
@pytest.mark.parametrize("sampling", ["leverage", "kernel"])
@pytest.mark.parametrize("model", [additive, interacting, saturating])
def test_kernel_shap(model, sampling, samples):
    values, errors = runs(jaxai.kernel_shap, model, 200, num_samples=samples, sampling=sampling)
    check(values, errors, shapley_truth(model), covered=0.9)


@pytest.mark.slow
def test_forty_keys():
    values, errors = runs(jaxai.lime, interacting, 40, num_samples=100)
    check(values, errors, lime_truth(interacting), covered=0.85)
    values, errors = runs(jaxai.kernel_shap, interacting, 40, num_samples=100)
    check(values, errors, shapley_truth(interacting), covered=0.85)


@pytest.mark.slow
def test_the_shrinkage_of_an_additive_model_is_known():
    values, errors = runs(jaxai.lime, additive, 4, num_samples=100)
    np.testing.assert_allclose(errors, np.abs(values - COEFFICIENTS), rtol=1e-2, atol=1e-5)


@pytest.mark.slow
def test_a_tolerance_bounds_the_error():
    found = jaxai.lime(
        lambda x: additive(x)[:, None],
        IMAGE,
        first,
        segments=SEGMENTS,
        key=jax.random.key(0),
        fill=0.0,
        num_samples=5000,
        tolerance=0.005,
    )
    assert found.masks.shape[0] < 5000
    assert np.abs(found.weights[0] - COEFFICIENTS).max() <= 0.0051


@pytest.mark.slow
def test_too_few_masks_are_said():
    options = {"segments": SEGMENTS, "key": jax.random.key(0), "fill": 0.0}
    model = lambda x: interacting(x)[:, None]  # noqa: E731
    with pytest.warns(RuntimeWarning, match="22 masks are too few to tell"):
        found = jaxai.kernel_shap(model, IMAGE, first, num_samples=22, **options)
    assert np.isfinite(found.values).all() and np.isnan(found.standard_error).all()
    with pytest.warns(RuntimeWarning, match="12 masks are too few to tell"):
        few = jaxai.lime(model, IMAGE, first, num_samples=12, **options)
    assert np.isfinite(few.weights).all() and np.isnan(few.standard_error).all()
    exact = jaxai.kernel_shap(model, IMAGE, first, num_samples=2**COUNT - 2, **options)
    assert (exact.standard_error == 0).all()
    np.testing.assert_allclose(exact.values[0], shapley_truth(interacting), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", slow_but(jaxai.lime, [jaxai.lime, jaxai.kernel_shap]))
def test_padding_is_no_unknown(method):
    """Each image of a batch has the degrees of freedom of its own superpixels, and the others are named."""
    columns = 24
    labels = np.stack([np.arange(columns) // 2, np.arange(columns)])[:, None]
    images = jax.random.normal(jax.random.key(2), (2, 1, columns, 1))
    slopes = jax.random.normal(jax.random.key(3), (columns, 3))
    model = lambda x: jnp.tanh(x[:, 0, :, 0] @ slopes / 3)  # noqa: E731

    def run(which):
        key = jax.random.key(0)
        return method(model, images[which], segments=labels[which], key=key, num_samples=masks, fill=0.0)

    # Enough for the 12 superpixels of the first image; the 24 of the second leave too few to know.
    masks = 26 if method is jaxai.lime else 50
    with pytest.warns(RuntimeWarning, match=f"{masks} masks .* of image 1, with 24 superpixels, may be off"):
        both = run(slice(0, 2))
    alone = run(slice(0, 1))
    (values, expected) = (
        (both.weights, alone.weights) if method is jaxai.lime else (both.values, alone.values)
    )
    np.testing.assert_allclose(values[0, :12], expected[0], atol=1e-5)
    np.testing.assert_allclose(both.standard_error[0, :12], alone.standard_error[0], rtol=1e-3, atol=1e-6)
    assert (alone.standard_error > 0).all() and np.isnan(both.standard_error[1]).all()
    assert (both.standard_error[0, 12:] == 0).all()
    with pytest.warns(RuntimeWarning, match="of image 0, with 24 superpixels, may be off"):
        run(slice(1, 2))


@pytest.mark.slow
def test_the_image_that_needs_more_masks_is_named():
    labels = np.stack([np.arange(24) // 2, np.arange(24)])[:, None]
    options = {"segments": labels, "key": jax.random.key(0), "fill": 0.0}
    with pytest.raises(ValueError, match=r"30 masks do not tell 24 superpixels apart \(image 1\)"):
        jaxai.kernel_shap(lambda x: 9 * x[:, 0, :3, 0], jnp.ones((2, 1, 24, 1)), num_samples=30, **options)
