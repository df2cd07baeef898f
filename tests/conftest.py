"""Settings and small networks that every test may use."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "standard")
jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture(scope="session", autouse=True)
def weights_cache():
    """An empty cache, so that what is tested is what the converters write now."""
    with tempfile.TemporaryDirectory(prefix="jaxai-test-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXAI_CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def lite0():
    """EfficientNet-Lite0 with its real weights."""
    import jaxai

    return jaxai.models.load("efficientnet_lite0")


@pytest.fixture(scope="session")
def photos():
    """Photographs that come with scikit-image, uint8 [height, width, 3], by name."""
    from skimage import data

    return {
        "cat": np.asarray(data.chelsea()),
        "coffee": np.asarray(data.coffee()),
        "rocket": np.asarray(data.rocket()),
        "astronaut": np.asarray(data.astronaut()),
    }
