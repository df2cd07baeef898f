"""The CAM family on small networks: each formula in NumPy, principal components, other score functions."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, parts, raw
from every_method import METHODS

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])


def formula(name, acts, grads):
    axes = (1, 2)
    mean = grads.mean(axes, keepdims=True)
    if name == "grad_cam":
        return (mean * acts).sum(-1)
    if name == "hires_cam":
        return (grads * acts).sum(-1)
    if name == "layer_cam":
        return (np.maximum(grads, 0) * acts).sum(-1)
    if name == "element_wise_grad_cam":
        return np.maximum(grads * acts, 0).sum(-1)
    if name == "xgrad_cam":
        weight = (grads * acts).sum(axes, keepdims=True) / (acts.sum(axes, keepdims=True) + 1e-7)
        return (weight * acts).sum(-1)
    if name == "grad_cam_plus_plus":
        alpha = grads**2 / (2 * grads**2 + acts.sum(axes, keepdims=True) * grads**3 + 1e-6)
        weight = (np.where(grads != 0, alpha, 0) * np.maximum(grads, 0)).sum(axes, keepdims=True)
        return (weight * acts).sum(-1)
    if name == "fem":
        threshold = acts.mean(axes, keepdims=True) + 2 * acts.std(axes, keepdims=True)
        return ((acts > threshold).mean(axes, keepdims=True) * acts).sum(-1)
    raise KeyError(name)


@pytest.mark.parametrize(
    "name",
    ["grad_cam", "hires_cam", "layer_cam", "element_wise_grad_cam", "xgrad_cam", "grad_cam_plus_plus", "fem"],
)
def test_formula(name, dense_net, small_images):
    classes = TARGETS[:, 0]
    expected = formula(name, *parts(dense_net, small_images, classes))
    close(raw(METHODS[name], dense_net, small_images, classes), expected)


def first_component(rows):
    rows = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    projection = rows @ axes[0]
    return projection * (1 if projection @ rows.sum(1) >= 0 else -1)


def test_principal_components_are_those_of_a_singular_value_decomposition(dense_net, small_images):
    acts, grads = parts(dense_net, small_images, TARGETS[:, 0])
    for method, values in (
        (jaxai.eigen_cam, acts),
        (jaxai.eigen_grad_cam, acts * grads),
        (partial(jaxai.eigen_grad_cam, magnitude=True), acts * np.abs(grads)),
    ):
        expected = [first_component(v.reshape(-1, v.shape[-1])).reshape(v.shape[:2]) for v in values]
        close(raw(method, dense_net, small_images, TARGETS[:, 0]), np.stack(expected), 1e-4)


@pytest.mark.parametrize("channels", [3, 200])
def test_principal_components_of_many_positions_and_of_many_channels(channels):
    """The matrix of the channels is decomposed where it is smaller than that of the positions."""
    net = jaxai.chain({"conv2": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    x = jnp.asarray(np.random.default_rng(channels).normal(size=(2, 6, 8, channels)), jnp.float32)
    # One axis leads, so that the component is well determined.
    x = x + 3 * jnp.linspace(-1, 1, 48).reshape(6, 8, 1) * jnp.arange(channels) / channels
    expected = np.stack(
        [first_component(v.reshape(48, -1).astype(float)).reshape(6, 8) for v in np.asarray(x)]
    )
    for method in (jaxai.eigen_cam, partial(jaxai.kpca_cam, kernel="linear")):
        close(raw(method, net, x, 0), expected, 1e-4)

    def loss(x):
        return (jaxai.eigen_cam(net, x, 0, relu=False, upsample=False)[0, 2, 3]) ** 2

    step = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32) * 1e-2
    slope = (loss(x + step) - loss(x - step)) / 2
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(x), step), slope, rtol=2e-2)
    assert not raw(jaxai.eigen_cam, net, jnp.ones((1, 4, 4, channels)), 0).any()
    gradient = jax.grad(lambda x: jaxai.eigen_cam(net, x, 0).sum())(jnp.ones((1, 4, 4, channels)))
    assert np.isfinite(gradient).all()


def test_layers_of_many_positions():
    net = jaxai.chain({"conv2": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    x = jax.random.normal(jax.random.key(0), (1, 128, 128, 4))
    began = time.perf_counter()
    assert raw(jaxai.eigen_cam, net, x, 0).shape == (1, 128, 128)
    assert time.perf_counter() - began < 20, "the matrix of all pairs of positions takes hours"
    with pytest.raises(ValueError, match="`layer` has 16384, expected at most 4096: choose a later layer"):
        jaxai.kpca_cam(net, x, 0)


def test_kernel_principal_components(dense_net, small_images):
    acts, _ = parts(dense_net, small_images, TARGETS[:, 0])
    kernels = {
        "sigmoid": lambda k, n: np.tanh(0.2 * k + 1),
        "polynomial": lambda k, n: (0.2 * k + 1) ** 3,
        "rbf": lambda k, n: np.exp(-0.2 * (n[:, None] + n - 2 * k)),
        "cosine": lambda k, n: k / np.sqrt(n[:, None] * n),
    }
    for name, kernel in kernels.items():
        found = raw(jaxai.kpca_cam, dense_net, small_images, None, kernel=name, gamma=0.2)
        rows = acts[0].reshape(-1, acts.shape[-1])
        rows = rows - rows.mean(0)
        gram = rows @ rows.T
        gram = kernel(gram, np.diag(gram))
        centre = np.eye(len(gram)) - 1 / len(gram)
        values, vectors = np.linalg.eigh(centre @ gram @ centre)
        expected = vectors[:, -1] * np.sqrt(values[-1])
        expected = expected * np.sign(expected @ rows.sum(1))
        close(found[0].ravel(), expected, 1e-4)


def test_smooth_score_function_is_exact(pooled_net, small_images):
    """With Y = phi(S), S linear in the activations, the derivatives come from jax.grad of Y alone."""
    classes = TARGETS[:, 0]
    acts, _ = parts(pooled_net, small_images, classes)
    phi = jax.nn.sigmoid
    found = raw(jaxai.grad_cam_plus_plus, pooled_net, small_images, classes, score_function=phi)
    positions = acts[0, ..., 0].size

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, None))
    def derivatives(acts, channel, target):
        def value(change):
            moved = acts.at[0, 0, channel].add(change)
            return phi(pooled_net(moved[None], start="conv2")[0, target])

        first = jax.grad(value)
        second = jax.grad(first)
        return first(0.0), second(0.0), jax.grad(second)(0.0)

    for index in range(len(small_images)):
        # The head sees only the mean, so all positions of a channel have the same derivatives.
        moments = derivatives(jnp.asarray(acts[index], jnp.float32), jnp.arange(6), classes[index])
        d1, d2, d3 = np.asarray(moments, np.float64)
        bend = jax.grad(jax.grad(phi))(pooled_net(small_images)[index, classes[index]])
        alpha = d2 / (2 * d2 + acts[index].sum((0, 1)) * d3 + 1e-6 * float(bend))
        weights = positions * alpha * np.maximum(d1, 0)
        close(found[index], (weights * acts[index]).sum(-1), 1e-3)


def test_exponential_score_is_the_power_formula_times_its_value(pooled_net, small_images):
    scores = pooled_net(small_images)[jnp.arange(3), TARGETS[:, 0]] + 4
    shifted = jaxai.chain(
        {"conv2": lambda x: pooled_net(x, stop="conv2"), "rest": lambda a: pooled_net(a, start="conv2") + 4}
    )
    power = raw(jaxai.grad_cam_plus_plus, shifted, small_images, TARGETS[:, 0])
    exact = raw(jaxai.grad_cam_plus_plus, shifted, small_images, TARGETS[:, 0], score_function=jnp.exp)
    close(exact / jnp.exp(scores)[:, None, None], power, 1e-4)


def test_random_cam_is_seeded(dense_net, small_images):
    one = jaxai.random_cam(dense_net, small_images, key=KEY, relu=False)
    other = jaxai.random_cam(dense_net, small_images, key=jax.random.key(1), relu=False)
    assert np.abs(np.asarray(one - other)).max() > 0.1
    weights = jax.random.uniform(KEY, (6,), minval=-1.0, maxval=1.0)
    acts = dense_net(small_images, stop="conv2")
    close(raw(jaxai.random_cam, dense_net, small_images, None, key=KEY), acts @ weights)


def test_fem_needs_positions_enough_for_an_outlier():
    """One of n values lies at most sqrt(n - 1) standard deviations above the mean of all."""
    net = jaxai.chain({"pool": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    for rows, sigmas in ((5, 2.0), (3, 1.5), (1, 0.5)):
        x = jnp.zeros((1, rows, 1, 2)).at[0, 0].set(1.0)
        with pytest.raises(ValueError, match=rf"at least {rows + 1} positions .* got {rows}"):
            jaxai.fem(net, x, layer="pool", sigmas=sigmas)
        one_more = jnp.zeros((1, rows + 1, 1, 2)).at[0, 0].set(1.0)
        np.testing.assert_allclose(
            jaxai.fem(net, one_more, layer="pool", sigmas=sigmas).max(), 2 / (rows + 1)
        )
