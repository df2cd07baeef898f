"""Every method in the modes of JAX that users switch on: the same values, of the same types."""

from functools import partial

import jax
import numpy as np
import pytest
from every_method import METHODS, NOTHING, arrays

pytestmark = pytest.mark.usefixtures("quick_compilation")
# The others are as slow as they are many.
QUICK = {"saliency", "integrated_gradients", "grad_cam", "lrp", "lime", "kernel_shap", "rise", "occlusion"}
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
STEEP = {"extremal_perturbation", "meaningful_perturbation"}


@pytest.fixture(scope="module")
def plain(pooled_net, small_images):
    """Each method's maps of two images in no mode, computed once."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = explained(name, pooled_net, small_images)
        return known[name]

    return of


def explained(name, net, images, targets=1):
    targets = None if name in NOTHING else targets
    return [np.asarray(a) for a in arrays(METHODS[name](net, images[:2], targets))]


def same(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


@pytest.mark.sampled
@pytest.mark.parametrize("name", EACH)
def test_strict_types_strict_ranks_and_no_nan_on_the_way(name, plain, pooled_net, small_images):
    expected = plain(name)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        same(explained(name, pooled_net, small_images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"regression": "lasso", "alpha": 1e-3}, {"num_features": 2}], ids=str)
def test_other_regressions_in_the_strict_modes(options, pooled_net, small_images):
    lime = partial(METHODS["lime"], pooled_net, small_images, 1, **options)
    expected = [np.asarray(a) for a in arrays(lime())]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        same([np.asarray(a) for a in arrays(lime())], expected)


@pytest.mark.sampled
@pytest.mark.parametrize("name", EACH)
def test_64_bits_change_no_explanation_of_32(name, plain, pooled_net, small_images):
    """Images, weights and results stay float32 when wider types are allowed."""
    expected = plain(name)
    with jax.enable_x64(True):
        same(explained(name, pooled_net, small_images), expected, 1e-4 if name in STEEP else 1e-5)


@pytest.mark.parametrize("name", EACH)
def test_methods_compile_inside_other_programs(name, plain, pooled_net, small_images):
    targets = None if name in NOTHING else 1
    run = jax.jit(lambda net, x: arrays(METHODS[name](net, x, targets)))
    same(
        [np.asarray(a) for a in run(pooled_net, small_images[:2])],
        plain(name),
        1e-4 if name in STEEP else 1e-5,
    )


@pytest.mark.parametrize("name", EACH)
def test_compiled_in_64_bits_no_explanation_of_32_changes(name, plain, pooled_net, small_images):
    expected, targets = plain(name), None if name in NOTHING else 1
    with jax.enable_x64(True):
        run = jax.jit(lambda net, x: arrays(METHODS[name](net, x, targets)))
        found = [np.asarray(a) for a in run(pooled_net, small_images[:2])]
    same(found, expected, 1e-4 if name in STEEP else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mode", ["strict", "rank", "nans"])
def test_each_strict_mode_alone(mode, name, plain, pooled_net, small_images):
    modes = {
        "strict": lambda: jax.numpy_dtype_promotion("strict"),
        "rank": lambda: jax.numpy_rank_promotion("raise"),
        "nans": lambda: jax.debug_nans(True),
    }
    expected = plain(name)
    with modes[mode]():
        same(explained(name, pooled_net, small_images), expected)
