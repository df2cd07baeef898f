"""Fast CPU settings: known to this XLA, set in time, and of no consequence for results."""

import json
import os
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxai
from jaxai._cpu import configure

AVX512 = frozenset({"sse2", "avx2", "avx512f"})


def python(code, **variables):
    """Run code in a fresh process, which has not started JAX, and return its answer."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_flags_depend_on_jaxlib_and_cpu():
    assert configure.fast_flags("0.12.0.1", AVX512, "x86_64") == (configure.ONEDNN, configure.NO_YNN)
    assert configure.fast_flags("0.12.3", AVX512, "x86_64", onednn=False) == (configure.NO_YNN,)
    assert configure.fast_flags("0.10.2", AVX512, "x86_64") == (configure.NO_YNN,)
    # What was never tried could end the process.
    assert configure.fast_flags("0.13.0", AVX512, "x86_64") == ()
    assert configure.fast_flags("1.0", AVX512, "x86_64") == ()
    assert configure.fast_flags("0.12.0", frozenset({"avx2"}), "x86_64") == ()
    assert configure.fast_flags("0.12.0", frozenset(), "arm64") == ()


@pytest.mark.skipif(platform.system() != "Linux", reason="reads what Linux says")
def test_features_of_this_cpu():
    features = configure.cpu_features()
    assert features
    assert platform.machine() != "x86_64" or "sse2" in features


@pytest.mark.slow
def test_configure_keeps_the_users_flags():
    code = """
import json, os, jaxai
added = jaxai.configure_cpu()
print(json.dumps([added, os.environ.get("XLA_FLAGS", ""), jaxai.configure_cpu()]))
"""
    wanted = configure.fast_flags(jax.lib.__version__, configure.cpu_features(), platform.machine())
    added, flags, again = python(code)
    assert added == list(wanted) and flags.split() == list(wanted) and again == []
    own = f"{configure.NO_YNN}x --xla_dump_to=/nowhere"
    added, flags, _ = python(code, XLA_FLAGS=own)
    assert added == [flag for flag in wanted if flag != configure.NO_YNN]
    assert flags.split()[:2] == own.split()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
@pytest.mark.parametrize(
    ("options", "variables", "few"),
    [("", {}, True), ("keep_memory=False", {}, False), ("", {"MALLOC_ARENA_MAX": "8"}, False)],
)
def test_memory_stays_with_the_process(options, variables, few):
    # Each call returns a new array of 64 MiB, 16,384 pages of 4 KiB. It takes some calls until blocks of
    # this size have their places in the heap.
    code = f"""
import json, resource, jax, jax.numpy as jnp, jaxai
jaxai.configure_cpu({options})
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**24)
for _ in range(20):
    double(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    double(x).block_until_ready()
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20 / 2**14))
"""
    share = python(code, JAX_PLATFORMS="cpu", **variables)
    assert share < 0.5 if few else share > 0.9


@pytest.mark.slow
def test_too_late_is_said():
    code = """
import json, warnings, os, jax, jaxai
from jaxai._cpu import configure as cpu
cpu.cpu_features = lambda: frozenset({"avx512f"})
cpu.platform.machine = lambda: "x86_64"
before = cpu.backend_started()
jax.devices()
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    added = jaxai.configure_cpu()
said = [str(w.message) for w in seen if w.category is RuntimeWarning]
print(json.dumps([before, cpu.backend_started(), added, said, os.environ.get("XLA_FLAGS", "")]))
"""
    before, after, added, said, flags = python(code, JAX_PLATFORMS="cpu")
    assert (before, after) == (False, True)
    assert added == [] and flags == ""
    assert len(said) == 1 and "call jaxai.configure_cpu() before the first" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("padding", [(1, 1), (0, 2)])
def test_small_images_are_padded_before_they_are_convolved(padding):
    """XLA has no fast convolution of images that are smaller than the window."""
    code = f"""
import json, re, jax, jax.numpy as jnp
from jaxai.models.layers import conv
x = jax.random.normal(jax.random.key(0), (2, 2, 2, 16))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 16, 16))

def windows(layer):
    def scores(x):
        return layer(x, kernel).sum((1, 2))
    def both(x):
        return scores(x), jax.grad(lambda x: (scores(x)[:, 0] ** 2).sum())(x)
    text = jax.jit(both).lower(x).compile().as_text()
    return re.findall(r" convolution\\(.*window={{(.*?)}}", text)

def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ({padding}, {padding}), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

ours = windows(lambda x, k: conv(x, k, strides=(1, 1), padding=({padding}, {padding})))
print(json.dumps([ours, windows(plain)]))
"""
    ours, plain = python(code)
    assert len(ours) == 2 and set(ours) == {"size=3x3"}
    # The test sees the difference.
    assert len(plain) == 2 and "size=3x3" not in plain


@pytest.mark.slow
def test_images_that_shrink_to_one_position():
    code = """
import json, warnings, jax, jaxai
warnings.simplefilter("error")
jaxai.configure_cpu()
model = jaxai.models.load("efficientnet_lite0").model
x = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
alone = jax.vmap(lambda image: model(image[None])[0])
mapped = [jax.jit(alone)(x[:count]) for count in (1, 3)]
relevance = jaxai.deep_lift(model, x[:1], 0)
print(json.dumps([mapped[0].tolist(), mapped[1].tolist(), model(x).tolist(), float(relevance.sum())]))
"""
    one, three, expected, relevance = python(code, JAX_PLATFORMS="cpu")
    np.testing.assert_allclose(three, expected, atol=1e-4)
    np.testing.assert_allclose(one, expected[:1], atol=1e-4)
    assert np.isfinite(relevance)


@pytest.mark.slow
@pytest.mark.parametrize("onednn", [True, False])
def test_results_are_those_without_the_flags(lite0, photos, onednn):
    choices = [
        configure.fast_flags(jax.lib.__version__, configure.cpu_features(), platform.machine(), onednn=o)
        for o in (True, False)
    ]
    if not onednn and choices[0] == choices[1]:
        pytest.skip("this jaxlib has one set of flags")
    code = f"""
import json, jax, jaxai, numpy as np
from skimage import data
jaxai.configure_cpu(onednn={onednn})
net = jaxai.models.load("efficientnet_lite0")
x = net.preprocess(np.asarray(data.chelsea()))
cam = jaxai.grad_cam(net.model, x, 285, upsample=False)
gradient = jaxai.saliency(net.model, x[:, 80:144, 80:144], 285)
half = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), (net.model, x))
forward = jax.jit(lambda model, x: model(x))
half = forward(*half).astype("float32")
print(json.dumps([value.tolist() for value in (forward(net.model, x), cam, gradient, half)]))
"""
    scores, cam, gradient, half = (np.asarray(values) for values in python(code, JAX_PLATFORMS="cpu"))
    x = lite0.preprocess(photos["cat"])
    expected = np.asarray(jaxai.grad_cam(lite0.model, x, 285, upsample=False))
    # Float rounding, over sixty layers; a pixel's gradient jumps where a ReLU is at its kink.
    np.testing.assert_allclose(scores, jax.jit(lambda model, x: model(x))(lite0.model, x), atol=2e-4)
    np.testing.assert_allclose(cam, expected, atol=1e-4 * expected.max())
    expected = np.asarray(jaxai.saliency(lite0.model, x[:, 80:144, 80:144], 285))
    assert np.linalg.norm(gradient - expected) < 0.02 * np.linalg.norm(expected)
    assert np.corrcoef(half[0], scores[0])[0, 1] > 0.99
