"""Robustness and randomization: against loops in NumPy, closed forms, chance, and bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from common import close
from jax.tree_util import Partial
from skimage.metrics import structural_similarity

import jaxai
from jaxai import metrics
from jaxai._frame.model import as_model
from jaxai.metrics import _parameters, _shuffle

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(6, 8, 3, 4)), jnp.float32)


def linear_model(weights, x):
    return jnp.einsum("nhwc,hwck->nk", x, weights, precision="highest")


LINEAR = Partial(linear_model, WEIGHTS)


def constant_method(model, images, targets):
    return np.broadcast_to(np.arange(48.0).reshape(6, 8), (len(images), 6, 8))


def moved(images, radius, count):
    """Return the images that are drawn, [draws, batch, ...]."""
    drawn = [
        jax.random.uniform(jax.random.fold_in(KEY, i), images.shape[1:], minval=-1, maxval=1)
        for i in range(count)
    ]
    return np.asarray(images)[None] + radius * np.stack(drawn)[:, None]


def maps(net, images, targets):
    return np.asarray(jaxai.saliency(net, jnp.asarray(images, jnp.float32), targets).sum(-1), np.float64)


def norm(x):
    return np.sqrt((x.reshape(len(x), -1) ** 2).sum(1))


@pytest.mark.slow
def test_sensitivity_against_a_loop(dense_net, small_images):
    top = np.asarray(dense_net(small_images)).argmax(-1)
    run = {"key": KEY, "radius": 0.3, "num_samples": 7}
    largest = metrics.max_sensitivity(jaxai.saliency, dense_net, small_images, **run)
    mean = metrics.average_sensitivity(jaxai.saliency, dense_net, small_images, **run)
    slope = metrics.local_lipschitz(jaxai.saliency, dense_net, small_images, **run)
    flips = metrics.prediction_flips(dense_net, small_images, **run)
    own, changes, slopes, flipped = maps(dense_net, small_images, top), [], [], []
    for x in moved(small_images, 0.3, 7):
        apart = norm(maps(dense_net, x, top) - own)
        changes.append(apart / norm(own))
        slopes.append(apart / norm(x - np.asarray(small_images)))
        flipped.append(np.asarray(dense_net(jnp.asarray(x, jnp.float32))).argmax(-1) != top)
    close(largest, np.max(changes, axis=0), 1e-4)
    close(mean, np.mean(changes, axis=0), 1e-4)
    close(slope, np.max(slopes, axis=0), 1e-4)
    close(flips, np.mean(flipped, axis=0))
    small = metrics.max_sensitivity(jaxai.saliency, dense_net, small_images, batch_size=2, **run)
    close(small, largest, 1e-4)
    both = metrics.max_sensitivity(
        jaxai.saliency, dense_net, small_images, jnp.stack([top, (top + 1) % 7], 1), **run
    )
    assert both.shape == (3, 2)
    close(both[:, 0], largest, 1e-4)


@pytest.mark.slow
def test_closed_forms_of_robustness(small_images):
    run = {"key": KEY, "num_samples": 5}
    # The gradient of a linear model is the same everywhere.
    for metric in (metrics.max_sensitivity, metrics.average_sensitivity, metrics.local_lipschitz):
        np.testing.assert_array_equal(metric(jaxai.saliency, LINEAR, small_images, 1, **run), 0)
        np.testing.assert_array_equal(metric(constant_method, LINEAR, small_images, **run), 0)

    def identity(model, images, targets):
        return images

    # The map is the image, of one channel: both change by the same.
    grey = small_images[..., :1]
    model = Partial(linear_model, WEIGHTS[:, :, :1])
    ratio = metrics.local_lipschitz(identity, model, grey, **run)
    np.testing.assert_allclose(ratio, 1, rtol=1e-5)
    stable = metrics.relative_input_stability(identity, model, grey, radius=0.1, **run)
    np.testing.assert_allclose(stable.largest[stable.kept > 0], 1, rtol=1e-4)


@pytest.mark.slow
def test_relative_stability_against_a_loop(dense_net, small_images):
    top = np.asarray(dense_net(small_images)).argmax(-1)
    run = {"key": KEY, "radius": 0.3, "num_samples": 9, "epsilon": 1e-2}
    inputs = metrics.relative_input_stability(jaxai.saliency, dense_net, small_images, **run)
    outputs = metrics.relative_output_stability(jaxai.saliency, dense_net, small_images, **run)
    own, first, second, kept = maps(dense_net, small_images, top), [], [], []
    logits = np.asarray(dense_net(small_images))

    def relative(new, old):
        least = 1e-2 * np.abs(old).reshape(3, -1).max(1).reshape(3, *(1,) * (old.ndim - 1))
        return norm((new - old) / np.maximum(np.abs(old), least))

    for x in moved(small_images, 0.3, 9):
        change = relative(maps(dense_net, x, top), own)
        found = np.asarray(dense_net(jnp.asarray(x, jnp.float32)))
        kept.append(found.argmax(-1) == top)
        first.append(change / np.maximum(relative(x, np.asarray(small_images)), 1e-2))
        second.append(change / np.maximum(norm(found - logits), 1e-2))
    kept = np.array(kept)
    for found, values in ((inputs, first), (outputs, second)):
        values = np.where(kept, values, np.nan)
        close(found.median, np.nanmedian(values, 0), 1e-3)
        close(found.largest, np.nanmax(values, 0), 1e-3)
        close(found.kept, kept.mean(0))


# Randomization


def sin_model(first, second, params, x):
    hidden = jnp.sin(jnp.einsum("nhwc,cd->nhwd", x, second["w"]) + second["b"])
    hidden = params["scale"] * hidden.mean((1, 2))
    return hidden @ first


def tangled():
    """Return a model whose parameters lie in another order than they are used."""
    return Partial(
        sin_model,
        jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32),
        {"b": jnp.ones(5) * jnp.arange(5), "w": jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)},
        {"scale": jnp.arange(1.0, 6.0)},
    )


def test_layers_are_in_the_order_of_use(small_images, dense_net, pooled_net):
    found = _parameters.layers(as_model(tangled()), small_images)
    assert [layer.name for layer in found] == ["1", "2", "0"]
    assert [len(layer.leaves) for layer in found] == [2, 1, 1]
    assert [layer.name for layer in _parameters.layers(dense_net, small_images)] == [
        "conv1",
        "conv2",
        "hidden",
        "logits",
    ]
    flat = Partial(lambda p, x: x.mean((1, 2)) @ p["b"] @ p["a"], {"a": jnp.eye(3), "b": jnp.eye(3) * 2})
    found = _parameters.layers(as_model(flat), small_images)
    assert [(layer.name, layer.leaves) for layer in found] == [("0.b", (1,)), ("0.a", (0,))]


@pytest.mark.slow
def test_layers_of_flax_and_equinox(small_images):
    eqx = pytest.importorskip("equinox")
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.z_first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.a_last = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            return self.a_last(jax.nn.relu(self.norm(self.z_first(x))).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    net.eval()
    found = metrics.mprt(jaxai.saliency, net, small_images, 1, key=KEY)
    assert found.layers == ("a_last", "norm", "z_first") and np.isfinite(found.similarity).all()

    class Small(eqx.Module):
        out: eqx.nn.Linear
        inner: eqx.nn.Linear

        def __call__(self, x):
            return jax.vmap(lambda v: self.out(jnp.tanh(self.inner(v))))(x.mean((1, 2)))

    keys = jax.random.split(KEY)
    small = Small(eqx.nn.Linear(4, 5, key=keys[0]), eqx.nn.Linear(3, 4, key=keys[1]))
    assert metrics.mprt(jaxai.saliency, small, small_images, 1, key=KEY).layers == ("out", "inner")


def test_redrawn_parameters():
    model = tangled()
    for redraw in ("permute", "normal"):
        fresh = _parameters.redrawn(model, (0, 1, 2), KEY, redraw)
        before, after = jax.tree.leaves(model), jax.tree.leaves(fresh)
        np.testing.assert_array_equal(before[3], after[3])
        for a, b in zip(before[:3], after[:3], strict=True):
            assert not np.array_equal(a, b)
            if redraw == "permute" or a.ndim == 1:
                np.testing.assert_array_equal(np.sort(a, axis=None), np.sort(b, axis=None))
    zeros = _parameters.redrawn(model, (0,), KEY, lambda key, array: jnp.zeros_like(array))
    assert not np.asarray(jax.tree.leaves(zeros)[0]).any()
    with pytest.raises(ValueError, match="`redraw` must keep the shape"):
        _parameters.redrawn(model, (0,), KEY, lambda key, array: array[:1])


@pytest.mark.sampled
@pytest.mark.parametrize("count", [5000, 5003, 3 * 64 * 64])
def test_shuffled(count):
    place = np.asarray(_shuffle.shuffled(KEY, jnp.arange(count)))
    np.testing.assert_array_equal(np.sort(place), np.arange(count))
    np.testing.assert_array_equal(place, jax.jit(_shuffle.shuffled)(KEY, jnp.arange(count)))
    assert (place != np.asarray(_shuffle.shuffled(jax.random.key(1), jnp.arange(count)))).mean() > 0.99
    # Neither a place nor its neighbours say where it goes: no number is off by four standard errors.
    line = np.arange(count)
    for first, second in ((line, place), (line[1:], np.diff(place)), (place[:-1], place[1:])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / count**0.5
    blocks, _, _ = np.histogram2d(line, place, bins=16)
    expected = count / 256
    assert ((blocks - expected) ** 2 / expected).sum() < 255 + 4 * 510**0.5
    # As many places stay as do by chance, one of each permutation.
    stay = [
        (np.asarray(_shuffle.shuffled(jax.random.key(i), jnp.arange(count))) == line).sum() for i in range(30)
    ]
    assert abs(np.mean(stay) - 1) < 4 / 30**0.5


@pytest.mark.slow
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_mprt_against_a_loop(dense_net, small_images, order):
    found = metrics.mprt(jaxai.saliency, dense_net, small_images, 2, key=KEY, order=order)
    names = ["conv1", "conv2", "hidden", "logits"]
    leaves, structure = jax.tree.flatten(dense_net)
    groups = dict(zip(names, ([0], [1], [2, 3], [4, 5]), strict=True))
    expected, drawn = [], list(leaves)
    sequence = names[::-1] if order == "top_down" else names
    own = np.abs(maps(dense_net, small_images, 2)).reshape(3, -1)
    for name in sequence:
        drawn = list(leaves) if order == "independent" else drawn
        for number in groups[name]:
            values = leaves[number]
            keys = jax.random.fold_in(KEY, number)
            drawn[number] = jax.random.permutation(keys, values.reshape(-1)).reshape(values.shape)
        fresh = jax.tree.unflatten(structure, drawn)
        new = np.abs(maps(fresh, small_images, 2)).reshape(3, -1)
        expected.append([scipy.stats.spearmanr(a, b)[0] for a, b in zip(own, new, strict=True)])
    assert found.layers == tuple(sequence)
    np.testing.assert_allclose(found.similarity, np.transpose(expected), atol=2e-3)
    close(found.score, found.similarity.mean(-1))
    only = metrics.mprt(jaxai.saliency, dense_net, small_images, 2, key=KEY, layers=("logits",))
    assert only.layers == ("logits",)
    if order == "top_down":
        close(only.similarity[:, 0], found.similarity[:, 0])


@pytest.mark.slow
def test_methods_that_ignore_the_model(dense_net, small_images):
    found = metrics.mprt(constant_method, dense_net, small_images, 2, key=KEY)
    np.testing.assert_allclose(found.similarity, 1, atol=1e-6)
    np.testing.assert_allclose(metrics.emprt(constant_method, dense_net, small_images, 2, key=KEY), 0)
    found = metrics.random_logit(constant_method, dense_net, small_images, 2, key=KEY)
    np.testing.assert_allclose(found, 1, atol=1e-6)


def test_chance_of_randomization():
    images = jnp.ones((200, 6, 8, 3))

    def noise(model, images, targets):
        seed = int(np.abs(np.asarray(jax.tree.leaves(model)[0])[0, 0, 0, 0]) * 1e6)
        return np.random.default_rng(seed).normal(size=(len(images), 6, 8))

    found = metrics.mprt(noise, LINEAR, images, 0, key=KEY, absolute=False, batch_size=200).score
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(200)


def entropy(values):
    counts = np.histogram(values, bins=100)[0]
    return scipy.stats.entropy(counts)


@pytest.mark.slow
def test_emprt_against_numpy(dense_net, small_images):
    found = metrics.emprt(jaxai.saliency, dense_net, small_images, jnp.array([[2, 4]] * 3), key=KEY)
    leaves, structure = jax.tree.flatten(dense_net)
    for i, leaf in enumerate(leaves):
        order = jax.random.permutation(jax.random.fold_in(KEY, i), leaf.reshape(-1))
        leaves[i] = order.reshape(leaf.shape)
    fresh = jax.tree.unflatten(structure, leaves)
    for k, target in enumerate((2, 4)):
        before, after = maps(dense_net, small_images, target), maps(fresh, small_images, target)
        expected = [entropy(b) / entropy(a) - 1 for a, b in zip(before, after, strict=True)]
        np.testing.assert_allclose(found[:, k], expected, atol=0.02)


@pytest.mark.slow
def test_smooth_mprt(dense_net, small_images):
    run = {"key": KEY, "order": "top_down"}
    smooth = metrics.smooth_mprt(jaxai.saliency, dense_net, small_images, 2, num_samples=3, noise=0.0, **run)
    close(smooth.similarity, metrics.mprt(jaxai.saliency, dense_net, small_images, 2, **run).similarity, 1e-3)
    noisy = metrics.smooth_mprt(jaxai.saliency, dense_net, small_images, 2, num_samples=3, **run)
    assert noisy.layers == smooth.layers and np.abs(noisy.similarity - smooth.similarity).max() > 1e-3


@pytest.mark.slow
def test_random_logit(dense_net, small_images):
    asked = []

    def method(model, images, targets):
        asked.append(np.asarray(targets))
        return jaxai.saliency(model, images, targets)

    run = {"key": KEY, "similarity": "pearson"}
    found = metrics.random_logit(method, dense_net, small_images, 2, **run)
    own, other = asked
    assert (own == 2).all() and (other != 2).all() and (other >= 0).all() and (other < 7).all()
    pairs = zip(maps(dense_net, small_images, own), maps(dense_net, small_images, other), strict=True)
    close(found, [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs], 1e-4)
    alone = metrics.random_logit(method, dense_net, small_images[:1], 2, **run)
    close(alone, found[:1], 1e-4)
    from jaxai.metrics import _randomization

    drawn = _randomization._others(KEY, jnp.full(700, 2), count=7)
    assert set(np.unique(drawn)) == {0, 1, 3, 4, 5, 6}


def test_similarities():
    a, b = RNG.normal(size=(2, 4, 15, 20)).astype(np.float32)
    b = a + 0.5 * b
    for name in ("spearman", "pearson", "cosine", "ssim"):
        np.testing.assert_allclose(metrics.similarity(a, a, name=name), 1, atol=1e-5)
    found = metrics.similarity(a, b, name="ssim")
    for i in range(4):
        x, y = a[i] / np.abs(a[i]).max(), b[i] / np.abs(b[i]).max()
        # scikit-image averages over windows that lie within the image, as here.
        expected = structural_similarity(x.astype(float), y.astype(float), data_range=2.0)
        assert float(found[i]) == pytest.approx(expected, abs=1e-4)
        cosine = (a[i] * b[i]).sum() / np.linalg.norm(a[i]) / np.linalg.norm(b[i])
        assert float(metrics.similarity(a, b, name="cosine")[i]) == pytest.approx(cosine, abs=1e-5)
    with pytest.raises(ValueError, match="`similarity` must be one of spearman"):
        metrics.similarity(a, b, name="dice")
    with pytest.raises(ValueError, match="maps must have the same shape"):
        metrics.similarity(a, b[:1])


def test_errors(dense_net, small_images):
    run = partial(metrics.max_sensitivity, jaxai.saliency, dense_net, small_images, key=KEY)
    with pytest.raises(ValueError, match=r"`radius` must be a number in \(0, inf\]; got 0"):
        run(radius=0)
    with pytest.raises(ValueError, match="`num_samples` must be a positive integer"):
        run(num_samples=0)
    with pytest.raises(TypeError, match="`method` must be callable"):
        metrics.max_sensitivity("saliency", dense_net, small_images, key=KEY)
    with pytest.raises(ValueError, match=r"`method` must return maps .* got shape \(6, 8\)"):
        metrics.max_sensitivity(lambda m, x, t: x[0, ..., 0], dense_net, small_images, key=KEY)
    with pytest.raises(ValueError, match="the method's maps must be finite; that of image 0"):
        metrics.emprt(lambda m, x, t: x * np.nan, dense_net, small_images, key=KEY)
    with pytest.raises(ValueError, match="`order` must be one of top_down"):
        metrics.mprt(jaxai.saliency, dense_net, small_images, key=KEY, order="random")
    with pytest.raises(ValueError, match="unknown layer 'conv9'; the layers with parameters are conv1"):
        metrics.mprt(jaxai.saliency, dense_net, small_images, key=KEY, layers=("conv9",))
    with pytest.raises(ValueError, match="`redraw` must be one of permute, normal"):
        metrics.mprt(jaxai.saliency, dense_net, small_images, key=KEY, redraw="zeros")
    with pytest.raises(ValueError, match="`model` has no parameters to draw anew"):
        metrics.mprt(jaxai.saliency, lambda x: x.mean((1, 2)), small_images, key=KEY)
    with pytest.raises(TypeError, match="`targets` must be a class for each image"):
        metrics.random_logit(jaxai.saliency, dense_net, small_images, lambda s: s[:, 0], key=KEY)
    with pytest.raises(ValueError, match="at least two classes"):
        metrics.random_logit(jaxai.saliency, lambda x: x.mean((1, 2))[:, :1], small_images, key=KEY)
    with pytest.raises(ValueError, match="classes 0 to 6; got 9"):
        metrics.emprt(jaxai.saliency, dense_net, small_images, 9, key=KEY)
    assert np.isnan(metrics.max_sensitivity(lambda m, x, t: 0 * x, dense_net, small_images, key=KEY)).all()
