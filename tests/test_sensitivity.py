import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import qmc

import jaxai
from jaxai.perturbation import _sensitivity, sobol_design, sobol_indices
from jaxai.perturbation._hsic import hsic_indices

KEY = jax.random.key(0)


def ishigami(points, a=7.0, b=0.1):
    x = (2 * points - 1) * np.pi
    return np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0])


def ishigami_totals(a=7.0, b=0.1):
    first = 0.5 * (1 + b * np.pi**4 / 5) ** 2
    second, both = a**2 / 8, b**2 * np.pi**8 * 8 / 225
    return np.array([first + both, second, both]) / (first + second + both)


@pytest.mark.parametrize("estimator", ["jansen", "homma", "janon", "glen", "saltelli"])
@pytest.mark.parametrize("sampler", ["sobol", "halton", "latin_hypercube"])
def test_ishigami(estimator, sampler):
    points = sobol_design(3, 4096, sampler=sampler, key=KEY)
    found = sobol_indices(jnp.asarray(ishigami(points), jnp.float32), 3, estimator=estimator)
    np.testing.assert_allclose(found, ishigami_totals(), atol=0.06)


def jansen(values, count, dimensions):
    """Xplique's Jansen estimator, written out."""
    a, c = values[:count], values[2 * count :].reshape(dimensions, count)
    return np.sum((a[None] - c) ** 2, axis=1) / (2 * count * a.var(ddof=1))


@pytest.mark.slow
def test_sobol_is_xpliques_definition():
    images = jax.random.uniform(KEY, (2, 9, 14, 3))
    weights = jax.random.normal(jax.random.key(1), (9, 14, 3, 4)) / 8
    model = lambda x: jnp.sin(jnp.einsum("nhwc,hwck->nk", x, weights))  # noqa: E731
    found = jaxai.sobol(
        model, images, jnp.array([[0, 3], [1, 2]]), grid=(2, 3), num_designs=16, upsample=False
    )
    assert found.shape == (2, 2, 2, 3)
    sequence = qmc.Sobol(12, scramble=False)
    sequence.fast_forward(1)
    both = sequence.random(16).astype(np.float32)
    a, b = both[:, :6], both[:, 6:]
    mixed = [np.where(np.arange(6) == i, b, a) for i in range(6)]
    masks = np.concatenate([a, b, *mixed]).reshape(-1, 2, 3)
    large = masks[:, np.arange(9) * 2 // 9][:, :, np.arange(14) * 3 // 14]
    for image, class_ in ((0, 3), (1, 2)):
        values = np.asarray(model(jnp.asarray(large[..., None]) * images[image]))[:, class_]
        np.testing.assert_allclose(found[image, 1].ravel(), jansen(values, 16, 6), rtol=1e-3, atol=1e-5)


def hsic_by_matrices(masks, y):
    """Xplique's binary estimator, with the matrices written out."""
    n = len(y)
    centring = np.eye(n) - 1 / n
    kernel_y = np.exp(-((y[:, None] - y[None]) ** 2) / (2 * np.median(y) ** 2))
    centred_y = centring @ kernel_y @ centring
    found = []
    for column in masks.T:
        kernel = 1 + (0.5 - (column[:, None] - column[None]) ** 2)
        found.append(np.sum((centring @ kernel @ centring) * centred_y.T) / n)
    return np.array(found)


def test_hsic_is_xpliques_definition():
    random = np.random.RandomState(0)
    masks = random.randint(0, 2, (60, 7)).astype(np.float32)
    y = np.tanh(masks @ random.normal(size=7)) + 2
    found = hsic_indices(masks, jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(found, hsic_by_matrices(masks.astype(float), y), rtol=1e-3)
    both = hsic_indices(masks, jnp.stack([jnp.asarray(y, jnp.float32), jnp.ones(60)]))
    np.testing.assert_allclose(both[0], found, rtol=1e-5)
    np.testing.assert_allclose(both[1], 0, atol=1e-6)


@pytest.mark.parametrize("level", [100.0, 1000.0, 5000.0])
def test_hsic_of_large_scores_keeps_their_differences(level):
    random = np.random.RandomState(0)
    masks = random.randint(0, 2, (60, 4)).astype(np.float32)
    # Steps that float32 holds exactly at this level.
    y = level + (masks[:, 0] + 0.25 * masks[:, 1])
    found = hsic_indices(masks, jnp.asarray(y, jnp.float32))
    expected = hsic_by_matrices(masks.astype(float), y.astype(float))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert found.argmax() == 0


@pytest.mark.parametrize("method", [jaxai.sobol, jaxai.hsic])
class TestBoth:
    images = jax.random.uniform(KEY, (2, 8, 12, 3))
    run = dict(grid=(2, 3), num_designs=32)

    def model(self, x):
        return jnp.stack([jnp.tanh(x[:, :4, 4:8]).mean((1, 2, 3)), x[:, 4:, 8:].mean((1, 2, 3))], axis=1) + 1

    def test_finds_the_cell(self, method):
        maps = method(self.model, jnp.ones((1, 8, 12, 3)), jnp.array([[0, 1]]), upsample=False, **self.run)
        assert maps[0].reshape(2, -1).argmax(1).tolist() == [1, 5]

    @pytest.mark.slow
    def test_batches_chunks_and_jit(self, method):
        both = method(self.model, self.images, 0, **self.run)
        assert both.shape == (2, 8, 12)
        np.testing.assert_allclose(method(self.model, self.images[1:], 0, **self.run)[0], both[1], atol=1e-5)
        np.testing.assert_allclose(
            method(self.model, self.images, 0, batch_size=9, **self.run), both, atol=1e-5
        )
        jitted = jax.jit(lambda x: method(self.model, x, 0, **self.run))(self.images)
        np.testing.assert_allclose(jitted, both, atol=1e-5)

    def test_flat_scores_give_zeros(self, method):
        maps = method(lambda x: 0 * x.mean((1, 2)) + 3, self.images, 0, **self.run)
        np.testing.assert_allclose(maps, 0, atol=1e-6)

    def test_keys_scramble(self, method):
        plain = method(self.model, self.images, 0, **self.run)
        scrambled = method(self.model, self.images, 0, key=KEY, **self.run)
        assert not np.allclose(plain, scrambled)
        again = method(self.model, self.images, 0, key=KEY, **self.run)
        assert np.array_equal(again, scrambled)
        jitted = jax.jit(lambda x: method(self.model, x, 0, key=KEY, **self.run))(self.images)
        np.testing.assert_allclose(jitted, scrambled, atol=1e-5)

    def test_errors(self, method):
        with pytest.raises(ValueError, match="`num_designs` must be at least 2"):
            method(self.model, self.images, num_designs=1)
        with pytest.raises(ValueError, match="`sampler` must be one of"):
            method(self.model, self.images, sampler="dice")
        with pytest.raises(ValueError, match="needs a `key`"):
            method(self.model, self.images, sampler="latin_hypercube")
        with pytest.raises(ValueError, match="does not fit"):
            method(self.model, self.images, grid=9, num_designs=4)
        # An argument of the program, as a broken weight is: jaxlib 0.10 compiles a literal NaN to anything.
        broken = Partial(lambda bad, x: self.model(x) * bad, jnp.asarray(jnp.nan))
        with pytest.raises(ValueError, match="NaN or infinite"):
            method(broken, self.images, 0, **self.run)


def test_other_errors():
    images = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="`estimator` must be one of"):
        jaxai.sobol(lambda x: x.mean((1, 2)), images, estimator="best")
    with pytest.raises(ValueError, match="`width` must be positive"):
        jaxai.hsic(lambda x: x.mean((1, 2)), images, width=0.0)
    assert _sensitivity.points("sobol", 3, 8, None).min() > 0
