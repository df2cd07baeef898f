"""Settings and small networks that every test may use."""

import gc
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "standard")
jax.config.update("jax_numpy_rank_promotion", "allow")

# Compiling takes more of the suite's time than computing. What shortens it most depends on jaxlib, and an
# unknown flag ends the process; test_cpu.py runs processes of its own with the flags that users get.
if jax.lib.__version__.startswith("0.10."):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
else:
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of each `sampled` test the first case stays in the quick tier; the others are slow."""
    seen = set()
    for item in items:
        if item.get_closest_marker("unchecked") and config.getoption("--jaxtyping-packages", None):
            item.add_marker(pytest.mark.skip(reason="the checker of annotations is on"))
        if item.get_closest_marker("sampled"):
            name = item.nodeid.split("[")[0]
            if name in seen:
                item.add_marker("slow")
            seen.add(name)


@pytest.fixture(scope="module")
def browser():
    """Chromium; where JAXAI_BROWSER is set, it must be there."""
    if not os.environ.get("JAXAI_BROWSER"):
        pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    path = os.environ.get("JAXAI_BROWSER") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def axe():
    """Return what axe-core finds on a page that people with disabilities cannot use: its serious faults."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None and not os.environ.get("JAXAI_BROWSER"):
        pytest.skip("no axe-core here")
    script = (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text("utf-8")

    def faults(page):
        page.evaluate(script)
        listed = page.evaluate("axe.run()")["violations"]
        return [
            (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in listed
            if one["impact"] in ("serious", "critical")
        ]

    return faults


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


@pytest.fixture
def run(capsys):
    """Run the command in this process: the code, the lines it printed, the lines of its errors."""
    from jaxai.cli import main

    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture(scope="session")
def small_network():
    """The network of `tiny_network`."""
    from tiny_network import tiny

    return tiny()


@pytest.fixture
def on_the_small_network(small_network, monkeypatch, tmp_path):
    """The command explains the small network, in a folder of its own."""
    import jaxai

    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: small_network)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """Leave out the drawing, which is what takes time."""
    from jaxai.report import _writer

    monkeypatch.setattr(_writer.plots, "png", lambda figure: b"\x89PNG")


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


def _conv(kernel, x):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions))


def _small_stages(seed):
    from jax.tree_util import Partial

    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=(3, 3, *shape)).astype(np.float32) / 3 for shape in ((3, 5), (5, 6))]
    return {f"conv{i}": Partial(_conv, jax.numpy.asarray(kernel)) for i, kernel in enumerate(kernels, 1)}


def _dense(kernel, bias, x):
    # Ranks are equal, for the tests in which JAX wants them to be.
    return x.reshape(x.shape[0], -1) @ kernel + bias[None]


@pytest.fixture(scope="session")
def pooled_net():
    """Two convolutions, global average pooling and a linear layer of seven classes; any input size."""
    from jax.tree_util import Partial

    import jaxai

    rng = np.random.default_rng(1)
    kernel, bias = (jax.numpy.asarray(rng.normal(size=s), "float32") for s in ((6, 7), (7,)))
    return jaxai.chain(
        {
            **_small_stages(0),
            "pool": lambda x: x.mean((1, 2)),
            "logits": Partial(_dense, kernel, bias),
        }
    )


@pytest.fixture(scope="session")
def dense_net():
    """Two convolutions, a 2 x 2 maximum and two dense layers of seven classes; inputs of 6 x 8 pixels."""
    from jax.tree_util import Partial

    import jaxai

    rng = np.random.default_rng(2)
    shapes = ((3 * 4 * 6, 9), (9,), (9, 7), (7,))
    first, shift, second, bias = (jax.numpy.asarray(rng.normal(size=s) / 2, "float32") for s in shapes)

    def pool(x):
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def hidden(first, shift, x):
        return jax.nn.relu(_dense(first, shift, x))

    return jaxai.chain(
        {
            **_small_stages(3),
            "pool": pool,
            "hidden": Partial(hidden, first, shift),
            "logits": Partial(_dense, second, bias),
        }
    )


@pytest.fixture(scope="session")
def small_images():
    """Three images of 6 x 8 pixels."""
    return jax.numpy.asarray(np.random.default_rng(4).normal(size=(3, 6, 8, 3)), "float32")


@pytest.fixture
def quick_compilation():
    """Compile fast rather than well, for tests of many tiny programs."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def fresh_compiler():
    """Forget compiled programs after each module: some thousands of them exhaust a process's memory maps."""
    yield
    jax.clear_caches()
    gc.collect()
