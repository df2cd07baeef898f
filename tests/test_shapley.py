import itertools
import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import slow_but
from jax.tree_util import Partial

import jaxai
from jaxai.perturbation import _owen_values
from jaxai.perturbation._shapley_design import coalitions

GOLDENS = Path(__file__).parent / "goldens"
TOYS = runpy.run_path(str(GOLDENS / "toy_game.py"))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDENS / "perturbation.npz")


def as_network(players):
    """Return the toy game as a model of images whose pixels are the players, and such an image."""
    random = np.random.RandomState(players)
    single = jnp.asarray(random.normal(size=(players, 2)), jnp.float32)
    pair = jnp.asarray(random.normal(size=(2, players, players)) / players, jnp.float32)

    def model(x):
        z = x.reshape(len(x), -1)
        v = z @ single + jnp.einsum("np,opq,nq->no", z, pair, z)
        return jnp.tanh(v / 2) + 0.3 * v

    return model, jnp.ones((1, 1, players, 1)), jnp.arange(players)[None, None]


def target(index):
    return lambda scores: scores[:, index]


def by_definition(players, output):
    """Shapley's formula over all coalitions."""
    value = {}
    for size in range(players + 1):
        for subset in itertools.combinations(range(players), size):
            mask = np.zeros((1, players))
            mask[0, list(subset)] = 1
            value[frozenset(subset)] = TOYS["game"](mask, players)[0, output]
    shares = np.zeros(players)
    for player in range(players):
        for subset in value:
            if player not in subset:
                weight = math.factorial(len(subset)) * math.factorial(players - len(subset) - 1)
                shares[player] += (
                    weight * (value[subset | {player}] - value[subset]) / math.factorial(players)
                )
    return shares


def test_exact_is_the_definition():
    model, image, segments = as_network(6)
    e = jaxai.exact_shapley(model, image, target(1), segments=segments)
    np.testing.assert_allclose(e.values[0], by_definition(6, 1), atol=1e-5)
    np.testing.assert_allclose(e.base, TOYS["game"](np.zeros((1, 6)), 6)[0, 1], atol=1e-6)
    np.testing.assert_allclose(e.total, TOYS["game"](np.ones((1, 6)), 6)[0, 1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", slow_but("leverage", ["kernel", "leverage"]))
def test_kernel_shap_with_all_coalitions_is_exact(golden, sampling):
    model, image, segments = as_network(10)
    exact = jaxai.exact_shapley(model, image, target(0), segments=segments, batch_size=1024)
    np.testing.assert_allclose(exact.values[0], golden["kernel_exact"][0], atol=1e-5)
    # More than there are changes nothing.
    for count in (2**10 - 2, 1500) if sampling == "kernel" else (2**10 - 2,):
        e = jaxai.kernel_shap(
            model, image, target(0), num_samples=count, segments=segments, key=KEY, sampling=sampling
        )
        np.testing.assert_allclose(e.values, exact.values, atol=1e-5)
        assert (e.standard_error == 0).all()


def from_all_coalitions(players, output):
    """Shapley's formula, vectorised for more players."""
    masks = np.arange(2**players)[:, None] >> np.arange(players) & 1
    value, size = TOYS["game"](masks, players)[:, output], masks.sum(1)
    orders = np.array([math.factorial(k) * math.factorial(players - k - 1) for k in range(players)], float)
    orders /= math.factorial(players)
    joined, left = orders[size - 1], orders[np.minimum(size, players - 1)]
    return (np.where(masks, joined[:, None], -left[:, None]) * value[:, None]).sum(0)


@pytest.mark.slow
def test_sampling_error_is_below_that_of_shap(golden):
    np.testing.assert_allclose(from_all_coalitions(6, 1), by_definition(6, 1), atol=1e-12)
    model, image, segments = as_network(16)
    truth = from_all_coalitions(16, 0)
    shap = np.sqrt(np.mean((golden["kernel_sampled"][:, 0] - truth) ** 2))
    run = dict(segments=segments, num_samples=300, num_segments=16, batch_size=512)
    for sampling in ("kernel", "leverage"):

        @jax.jit
        @jax.vmap
        def explain(key, sampling=sampling):
            e = jaxai.kernel_shap(model, image, target(0), key=key, sampling=sampling, **run)
            return e.values[0], e.standard_error[0]

        values, claimed = explain(jax.random.split(KEY, 20))
        error = np.asarray(values) - truth
        assert np.sqrt(np.mean(error**2)) < 0.9 * shap
        # Within a group of disjoint coalitions errors cancel, which the estimate does not know.
        assert 0.7 < np.sqrt(np.mean(claimed**2)) / error.std() < 2
        np.testing.assert_allclose(values.sum(1), truth.sum(), atol=1e-4)


class TestShapOnTheRealNetwork:
    """Eight superpixels of a photograph, EfficientNet-Lite0, mean grey where one is hidden."""

    real = np.load(GOLDENS / "shapley_lite.npz")

    @pytest.mark.slow
    def test_kernel_and_partition_explainers(self, lite0):
        from skimage.data import chelsea

        x = lite0.normalize(jnp.asarray(chelsea()[38:262, 113:337], jnp.float32)[None] / 255)
        segments = jaxai.perturbation._segments.grid((224, 224), 2, 4)[None]
        top = int(self.real["target"])
        e = jaxai.kernel_shap(lite0.model, x, segments=segments, key=KEY, num_samples=254)
        assert int(e.targets[0]) == top
        np.testing.assert_allclose(e.values[0], self.real["kernel_exact"], atol=1e-4)
        np.testing.assert_allclose([e.base[0], e.total[0]], self.real["table"][[0, -1]], atol=1e-4)
        owen_shares = jaxai.owen_values(lite0.model, x, top, segments=segments, hierarchy=self.real["tree"])
        np.testing.assert_allclose(owen_shares.values[0], self.real["partition"], atol=1e-4)

    @pytest.mark.slow
    def test_sampling_error_is_at_most_that_of_shap(self):
        exact = self.real["kernel_exact"]
        table = jnp.asarray(self.real["table"], jnp.float32)

        def model(x):
            return table[(x[:, 0, :, 0] > 0.5).astype(jnp.int32) @ (1 << jnp.arange(8))][:, None]

        model = jax.tree_util.Partial(model)
        theirs = np.sqrt(np.mean((self.real["kernel_sampled"] - exact) ** 2))
        run = dict(segments=jnp.arange(8)[None, None], num_samples=100, batch_size=128)
        image, first = jnp.ones((1, 1, 8, 1)), jax.tree_util.Partial(lambda scores: scores[:, 0])
        for sampling in ("kernel", "leverage"):
            keys = [jax.random.key(seed) for seed in range(10)]
            runs = [jaxai.kernel_shap(model, image, first, key=k, sampling=sampling, **run) for k in keys]
            ours = np.sqrt(np.mean([(np.asarray(r.values[0]) - exact) ** 2 for r in runs]))
            assert ours < 1.1 * theirs


@pytest.mark.slow
def test_permutation_sampling():
    model, image, segments = as_network(8)
    exact = by_definition(8, 0)
    e = jaxai.permutation_shapley(model, image, target(0), segments=segments, key=KEY, num_permutations=200)
    error = np.abs(e.values[0] - exact)
    assert (error < 5 * e.standard_error[0] + 1e-5).all() and error.max() < 0.05
    np.testing.assert_allclose(e.values.sum(), e.total[0] - e.base[0], atol=1e-4)
    one = jaxai.permutation_shapley(model, image, target(0), segments=segments, key=KEY, num_permutations=1)
    assert jnp.isnan(one.standard_error).all() and jnp.isfinite(one.values).all()


METHODS = {
    "exact": lambda *a, **k: jaxai.exact_shapley(*a, **k),
    "kernel": lambda *a, **k: jaxai.kernel_shap(*a, key=KEY, num_samples=40, **k),
    "permutation": lambda *a, **k: jaxai.permutation_shapley(*a, key=KEY, num_permutations=2, **k),
    "owen": lambda *a, **k: jaxai.owen_values(*a, **k),
}


def small_batch():
    images = jax.random.uniform(jax.random.key(3), (2, 6, 10, 3))
    labels = [jaxai.perturbation._segments.grid((6, 10), *g) for g in ((2, 3), (2, 2))]
    weights = jax.random.normal(jax.random.key(4), (6, 10, 3, 3)) / 8

    def model(x):
        return jnp.einsum("nhwc,hwck->nk", jnp.sin(3 * x), weights)

    return model, images, jnp.stack(labels)


@pytest.mark.parametrize("name", METHODS)
class TestAxioms:
    @pytest.mark.sampled
    def test_linear_symmetry_and_dummy(self, name):
        """A linear score gives each superpixel its own sum; equal ones get the same, idle ones nothing."""
        coefficients = jnp.array([2.0, 2.0, 0.0, -1.0, 0.5])
        model = lambda x: (x[:, 0, :, 0] * coefficients).sum(1, keepdims=True)  # noqa: E731
        image = jnp.ones((1, 1, 5, 1))
        e = METHODS[name](model, image, target(0), segments=jnp.arange(5)[None, None])
        np.testing.assert_allclose(e.values[0], coefficients, atol=1e-5)

    @pytest.mark.sampled
    @pytest.mark.slow
    def test_batch_is_each_image_alone(self, name):
        model, images, labels = small_batch()
        both = METHODS[name](model, images, segments=labels)
        np.testing.assert_allclose(both.values.sum(1), both.total - both.base, atol=1e-5)
        alone = METHODS[name](model, images[1:], segments=labels[1:])
        np.testing.assert_allclose(both.values[1, :4], alone.values[0], atol=1e-5)
        assert (both.values[1, 4:] == 0).all() and both.heatmap.shape == (2, 6, 10)
        probability = jax.nn.softmax(model(images))
        np.testing.assert_allclose(both.total, probability.max(1), atol=1e-6)
        assert np.array_equal(both.targets, probability.argmax(1))
        part = METHODS[name](model, images, segments=labels, batch_size=5)
        np.testing.assert_allclose(part.values, both.values, atol=1e-6)

    @pytest.mark.sampled
    def test_targets_and_jit(self, name):
        model, images, labels = small_batch()
        many = METHODS[name](model, images, jnp.array([[0, 1], [2, 0]]), segments=labels)
        first = METHODS[name](model, images, jnp.array([0, 2]), segments=labels)
        assert many.values.shape == (2, 2, 6) and many.standard_error.shape == (2, 2, 6)
        np.testing.assert_allclose(many.values[:, 0], first.values, atol=1e-6)
        if name == "owen":
            return
        run = lambda x, s: METHODS[name](model, x, jnp.array([0, 2]), segments=s, num_segments=6)  # noqa: E731
        np.testing.assert_allclose(jax.jit(run)(images, labels).values, first.values, atol=1e-5)

    def test_errors(self, name):
        model, images, labels = small_batch()
        with pytest.raises(ValueError, match="one superpixel only"):
            METHODS[name](model, images, segments=labels * 0)
        # An argument of the program, as a broken weight is: jaxlib 0.10 compiles a literal NaN to anything.
        broken = Partial(lambda bad, x: model(x) * bad, jnp.asarray(jnp.nan))
        with pytest.raises(ValueError, match="NaN or infinite"):
            METHODS[name](broken, images, 0, segments=labels)
        with pytest.raises(ValueError, match="classes 0 to 2; got 3"):
            METHODS[name](model, images, 3, segments=labels)


def test_other_errors():
    model, images, labels = small_batch()
    many = jaxai.perturbation._segments.grid((6, 10), 3, 5)
    with pytest.raises(ValueError, match="at most 12 superpixels.*got 15"):
        jaxai.exact_shapley(model, images, segments=many)
    with pytest.raises(ValueError, match="do not tell 15 superpixels apart"):
        jaxai.kernel_shap(model, images, segments=many, key=KEY, num_samples=4)
    with pytest.raises(ValueError, match="`num_samples` must be at least 2"):
        jaxai.kernel_shap(model, images, segments=many, key=KEY, num_samples=1)
    with pytest.raises(ValueError, match="`sampling` must be one of"):
        jaxai.kernel_shap(model, images, segments=many, key=KEY, sampling="all")
    with pytest.raises(TypeError, match="must be concrete"):
        jax.jit(lambda s: jaxai.owen_values(model, images, segments=s).values)(labels)


class TestCoalitions:
    @pytest.mark.sampled
    @pytest.mark.parametrize(("players", "padding"), [(4, 0), (5, 2), (6, 1)])
    @pytest.mark.parametrize("leverage", [False, True])
    def test_all_are_listed_once(self, players, padding, leverage):
        present = jnp.array([1.0] * players + [0.0] * padding)
        design = coalitions(KEY, present, samples=2**players - 2, leverage=leverage)
        masks = np.asarray(design.masks)
        assert len({tuple(row) for row in masks.tolist()}) == 2**players - 2
        assert (masks[:, players:] == 0).all() and (design.sampled == 0).all()
        size = masks.sum(1).astype(int)
        kernel = np.array([1 / (math.comb(players, s) * s * (players - s)) for s in size])
        np.testing.assert_allclose(design.weights, kernel / kernel.sum(), rtol=1e-5)

    def test_what_is_not_listed_is_sampled_in_pairs(self):
        design = coalitions(KEY, jnp.ones(30), samples=400, leverage=False)
        masks, size = np.asarray(design.masks), np.asarray(design.masks).sum(1)
        assert (masks[::2] + masks[1::2] == 1).all()
        listed = np.asarray(design.sampled) == 0
        assert listed.sum() == 60 and set(size[listed]) == {1, 29}
        np.testing.assert_allclose(design.weights.sum(), 1, rtol=1e-5)
        kernel = 1 / (np.arange(1, 30) * (30 - np.arange(1, 30)))
        share = np.asarray(design.weights)[listed].sum()
        np.testing.assert_allclose(share, kernel[[0, -1]].sum() / kernel.sum(), rtol=1e-5)

    @pytest.mark.slow
    def test_leverage_draws_all_sizes_alike(self):
        size = np.asarray(coalitions(KEY, jnp.ones(30), samples=580, leverage=True).masks).sum(1)
        counts = np.bincount(size.astype(int), minlength=31)[1:30]
        assert counts.min() >= 18 and counts.max() <= 22


class TestOwen:
    def test_against_shaps_partition_explainer(self, golden):
        model, image, segments = as_network(7)
        for output in range(2):
            e = jaxai.owen_values(
                model, image, target(output), segments=segments, hierarchy=golden["partition_tree"]
            )
            np.testing.assert_allclose(e.values[0], golden["partition_values"][output], atol=1e-5)

    def test_two_levels_by_hand(self):
        # Superpixels 0 and 1 multiply; united first, they share their product, 2 gets its own part.
        model = lambda x: x[:, 0, 0] * x[:, 0, 1] * (1 + x[:, 0, 2])  # noqa: E731
        e = jaxai.owen_values(
            model,
            jnp.ones((1, 1, 3, 1)),
            target(0),
            segments=jnp.array([[0, 1, 2]]),
            hierarchy=[[0, 1], [3, 2]],
        )
        # As two players, {0, 1} gets (1 + 2) / 2 and 2 gets (0 + 1) / 2.
        np.testing.assert_allclose(e.values[0], [0.75, 0.75, 0.5], atol=1e-6)

    def test_depth_shares_alike_below(self):
        model, image, segments = as_network(8)
        e = jaxai.owen_values(model, image, target(0), segments=segments, depth=1)
        values = np.asarray(e.values[0])
        np.testing.assert_allclose(values[:4], values[0], atol=1e-6)
        np.testing.assert_allclose(values[4:], values[4], atol=1e-6)
        np.testing.assert_allclose(values.sum(), e.total[0] - e.base[0], atol=1e-5)

    def test_number_of_masks(self):
        tree = _owen_values.bisection(np.arange(16).reshape(4, 4))
        plan = _owen_values.plan(tree, 16, None)
        assert len(plan.masks) <= 16 * 16 and np.allclose(plan.coefficients.sum(0), 0, atol=1e-6)

    def test_errors(self):
        model, images, labels = small_batch()
        with pytest.raises(ValueError, match="different ones"):
            jaxai.owen_values(model, images, segments=labels, hierarchy=[[0, 1]] * 5)
        with pytest.raises(ValueError, match=r"shape \(5, 2\)"):
            jaxai.owen_values(model, images, segments=labels[0], hierarchy=[[0, 1]])
        with pytest.raises(ValueError, match="two clusters that are left; step 1"):
            jaxai.owen_values(model, images, segments=labels[0], hierarchy=[[0, 1]] * 5)
        with pytest.raises(ValueError, match="`depth` must be"):
            jaxai.owen_values(model, images, segments=labels[0], depth=-1)
