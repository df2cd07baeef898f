import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso, LinearRegression, Ridge, lars_path

import jaxai
from jaxai.perturbation import _kernels, _lime_fit, _regression, _selection


def draw(samples=300, count=17, targets=3, seed=0):
    random = np.random.RandomState(seed)
    masks = random.randint(0, 2, (samples, count)).astype(np.float32)
    truth = random.normal(size=(count, targets))
    scores = 0.5 + 0.01 * (masks @ truth + 0.3 * random.normal(size=(samples, targets)))
    return masks, scores.astype(np.float32)


def lime_weights(masks, width=0.25):
    distance = 1 - np.sqrt(masks.sum(1) / masks.shape[1])
    return np.sqrt(np.exp(-(distance**2) / width**2))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 50.0])
def test_ridge_is_that_of_scikit_learn(alpha):
    masks, scores = draw()
    expected = Ridge(alpha).fit(masks, scores, lime_weights(masks))
    weights, intercept, score = jaxai.fit_lime(masks, scores, alpha=alpha)
    np.testing.assert_allclose(weights, expected.coef_, atol=1e-5)
    np.testing.assert_allclose(intercept, expected.intercept_, atol=1e-5)
    for target in range(3):
        alone = Ridge(alpha).fit(masks, scores[:, target], lime_weights(masks))
        r2 = alone.score(masks, scores[:, target], lime_weights(masks))
        np.testing.assert_allclose(score[target], r2, atol=1e-5)


def test_large_offsets_do_not_cost_precision():
    masks, scores = draw()
    weights = jaxai.fit_lime(masks, scores + 100).weights
    # Adding 100 in float32 rounds the scores themselves to 8e-6.
    np.testing.assert_allclose(weights, jaxai.fit_lime(masks, scores).weights, atol=2e-6)


@pytest.mark.slow
def test_shapes():
    masks, scores = draw()
    alone = jaxai.fit_lime(masks, scores[:, 0])
    assert alone.weights.shape == (17,) and alone.intercept.shape == () and alone.score.shape == ()
    batch = jaxai.fit_lime(masks, scores.T)
    np.testing.assert_allclose(batch.weights[0], alone.weights, atol=1e-6)
    both = jaxai.fit_lime(masks, np.stack([scores, scores * 2]))
    assert both.weights.shape == (2, 3, 17) and both.score.shape == (2, 3)
    np.testing.assert_allclose(both.weights[1], 2 * both.weights[0], atol=1e-6)
    other, more = draw(seed=1)
    own = jaxai.fit_lime(np.stack([masks, other]), np.stack([scores, more]))
    np.testing.assert_allclose(own.weights[1], jaxai.fit_lime(other, more).weights, atol=1e-6)


@pytest.mark.slow
def test_compiles_and_maps():
    masks, scores = draw()
    plain = jaxai.fit_lime(masks, scores)
    for other in (
        jax.jit(jaxai.fit_lime)(masks, scores),
        jax.tree.map(lambda x: x[0], jax.vmap(jaxai.fit_lime)(masks[None], scores[None])),
    ):
        for a, b in zip(plain, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    gradient = jax.grad(lambda s: jaxai.fit_lime(masks, s).weights.sum())(jnp.asarray(scores))
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()


def test_constant_scores_give_zeros():
    masks, _ = draw()
    weights, intercept, score = jaxai.fit_lime(masks, np.full(300, 0.37, np.float32))
    assert (weights == 0).all() and score == 1
    np.testing.assert_allclose(intercept, 0.37, rtol=1e-6)


def test_errors():
    masks, scores = draw()
    with pytest.raises(ValueError, match="one value a mask"):
        jaxai.fit_lime(masks, scores[:-1])
    with pytest.raises(ValueError, match="all of them are equal"):
        jaxai.fit_lime(np.ones_like(masks), scores)
    with pytest.raises(ValueError, match="NaN or infinite scores: 1 of 900"):
        bad = scores.copy()
        bad[4, 1] = np.nan
        jaxai.fit_lime(masks, bad)
    with pytest.raises(ValueError, match="singular"):
        jaxai.fit_lime(masks[:9], scores[:9], alpha=0.0)
    twins = np.concatenate([masks, masks[:, :1]], axis=1)
    with pytest.raises(ValueError, match="singular"):
        jaxai.fit_lime(twins, scores, alpha=0.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        jaxai.fit_lime(masks * 2, scores)
    with pytest.raises(ValueError, match="must be \\[samples, S\\]"):
        jaxai.fit_lime(masks[0], scores)


class TestDistances:
    masks = np.random.RandomState(0).uniform(size=(20, 6)).astype(np.float32)
    labels = np.random.RandomState(1).randint(0, 6, (1, 9, 5))
    image = np.random.RandomState(2).normal(size=(1, 9, 5, 3)).astype(np.float32)
    background = np.random.RandomState(3).normal(size=(1, 9, 5, 3)).astype(np.float32)

    def images(self):
        shown = self.masks[:, self.labels[0]][..., None]
        return shown * self.image + (1 - shown) * self.background

    def moments(self):
        found = _kernels.moments(jnp.asarray(self.image), jnp.asarray(self.background), self.labels, count=6)
        return jax.tree.map(lambda x: x[0], found)

    def test_pixel_distances_match_images(self):
        flat, original = self.images().reshape(20, -1), self.image.reshape(-1)
        euclidean = np.linalg.norm(flat - original, axis=1)
        cosine = 1 - flat @ original / np.linalg.norm(flat, axis=1) / np.linalg.norm(original)
        ones = jnp.ones(6)
        found = _kernels.distances("pixel_euclidean", self.masks, ones, self.moments())
        np.testing.assert_allclose(found, euclidean, rtol=1e-4)
        found = _kernels.distances("pixel_cosine", self.masks, ones, self.moments())
        np.testing.assert_allclose(found, cosine, atol=1e-5)

    def test_mask_cosine(self):
        binary = (self.masks > 0.5).astype(np.float32)
        binary[0], binary[1] = 1, 0
        found = _kernels.distances("mask_cosine", binary, jnp.ones(6), None)
        np.testing.assert_allclose(found, 1 - np.sqrt(binary.sum(1) / 6), atol=1e-6)
        assert found[0] == 0 and found[1] == 1

    def test_counts_are_binomial(self):
        from scipy.stats import binom

        probability, weight = _kernels.of_counts(jnp.array([1.0] * 9 + [0.0] * 3), 0.25)
        np.testing.assert_allclose(probability, binom.pmf(np.arange(13), 9, 0.5), atol=1e-6)
        np.testing.assert_allclose(weight[:10], lime_weights(np.tri(10, 9, -1)), rtol=1e-5)


class TestSelection:
    def problem(self, seed=0, samples=300, count=17):
        masks, scores = draw(samples, count, 2, seed)
        weight = lime_weights(masks).astype(np.float32)
        p = _regression.problem(jnp.asarray(masks), jnp.asarray(scores), jnp.asarray(weight), jnp.ones(count))
        return masks, scores, weight, p

    @pytest.mark.parametrize("seed", range(3))
    def test_forward_selection_is_greedy_on_r_squared(self, seed):
        masks, scores, weight, p = self.problem(seed)
        used = []
        for _ in range(5):
            gains = {}
            for feature in set(range(17)) - set(used):
                columns = masks[:, [*used, feature]]
                model = LinearRegression().fit(columns, scores[:, 0], weight)
                gains[feature] = model.score(columns, scores[:, 0], weight)
            used.append(max(gains, key=gains.get))
        chosen = _selection.choose("forward_selection", p.gram, p.products[:, 0], p.present, 5)
        assert sorted(used) == np.flatnonzero(chosen).tolist()

    @pytest.mark.sampled
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("number", [1, 4, 9])
    def test_lasso_path_is_that_of_scikit_learn(self, seed, number):
        masks, scores, weight, p = self.problem(seed, samples=60)
        rows = (masks - np.average(masks, axis=0, weights=weight)) * np.sqrt(weight[:, None])
        right = (scores[:, 0] - np.average(scores[:, 0], weights=weight)) * np.sqrt(weight)
        _, _, path = lars_path(rows.astype(np.float64), right.astype(np.float64), method="lasso")
        supports = [np.flatnonzero(c) for c in path.T[1:]]
        expected = [s for s in supports if len(s) <= number][-1]
        chosen = _selection.choose("lasso_path", p.gram, p.products[:, 0], p.present, number)
        assert np.flatnonzero(chosen).tolist() == expected.tolist()

    def test_highest_weights(self):
        masks, scores, weight, p = self.problem()
        coefficients = Ridge(0.01).fit(masks, scores[:, 1], weight).coef_
        chosen = _selection.choose("highest_weights", p.gram, p.products[:, 1], p.present, 6)
        assert np.flatnonzero(chosen).tolist() == sorted(np.argsort(-np.abs(coefficients))[:6])

    @pytest.mark.sampled
    @pytest.mark.parametrize("alpha", [1e-4, 1e-3, 5e-3])
    @pytest.mark.slow
    def test_lasso_is_that_of_scikit_learn(self, alpha):
        masks, scores, weight, p = self.problem()
        fit = _regression.lasso(p, jnp.float32(alpha))
        for target in range(2):
            expected = Lasso(alpha, tol=1e-10).fit(
                masks.astype(np.float64), scores[:, target].astype(np.float64), weight.astype(np.float64)
            )
            np.testing.assert_allclose(fit.weights[target], expected.coef_, atol=1e-5)
            np.testing.assert_allclose(fit.intercept[target], expected.intercept_, atol=1e-5)
            assert ((fit.weights[target] == 0) == (np.abs(expected.coef_) < 1e-6)).all()

    def test_auto(self):
        assert _selection.resolve("auto", 6, 20) == "forward_selection"
        assert _selection.resolve("auto", 7, 20) == "highest_weights"
        assert _selection.resolve("lasso_path", None, 20) == "none"
        assert _selection.resolve("lasso_path", 20, 20) == "none"


@pytest.mark.slow
def test_standard_error_of_least_squares_is_the_jackknife():
    # Each sample left out in turn (HC3); the penalty's part is the distance to the fit without it.
    masks, scores = draw(60, 6, 1)
    weight = lime_weights(masks)
    p = _regression.problem(*map(jnp.asarray, (masks, scores, weight)), jnp.ones(6))
    plain = LinearRegression().fit(masks, scores[:, 0], weight).coef_
    left_out = [
        LinearRegression().fit(*(np.delete(x, i, axis=0) for x in (masks, scores[:, 0], weight))).coef_
        for i in range(60)
    ]
    jackknife = np.sum((np.array(left_out) - plain) ** 2, axis=0)
    np.testing.assert_allclose(_regression.ridge(p, 0.0).standard_error[0] ** 2, jackknife, rtol=1e-3)
    x = masks - np.average(masks, 0, weight)
    gram = x.T @ (x * weight[:, None])
    turned = np.linalg.solve(gram + 3 * np.eye(6), gram)
    moves = (np.array(left_out) - plain) @ turned.T
    shrunk = plain - Ridge(3.0).fit(masks, scores[:, 0], weight).coef_
    expected = np.sqrt(np.sum(moves**2, axis=0) + shrunk**2)
    np.testing.assert_allclose(_regression.ridge(p, 3.0).standard_error[0], expected, rtol=1e-3)


@pytest.mark.slow
def test_pairs_are_left_out_together():
    masks, scores = draw(41, 5, 1)
    p = _regression.problem(*map(jnp.asarray, (masks, scores)), jnp.ones(41), jnp.ones(5))
    plain = LinearRegression().fit(masks, scores[:, 0]).coef_
    left_out = [
        LinearRegression()
        .fit(*(np.delete(x, range(i, min(i + 2, 41)), 0) for x in (masks, scores[:, 0])))
        .coef_
        for i in range(0, 41, 2)
    ]
    jackknife = np.sqrt(np.sum((np.array(left_out) - plain) ** 2, axis=0))
    np.testing.assert_allclose(_regression.ridge(p, 0.0, 2).standard_error[0], jackknife, rtol=1e-3)


@pytest.mark.slow
def test_too_few_samples_have_no_standard_error():
    for samples, known in ((7, False), (11, False), (12, True)):
        masks, scores = draw(samples, 6, 1, seed=3)
        p = _regression.problem(*map(jnp.asarray, (masks, scores)), jnp.ones(samples), jnp.ones(6))
        assert jnp.isfinite(_regression.ridge(p, 1.0).standard_error).all() == known


def all_masks(count):
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float32)


class TestLimit:
    def test_enumeration_is_the_weighted_regression(self):
        masks = all_masks(8)
        scores = np.tanh(masks @ np.random.RandomState(0).normal(size=(8, 2))).astype(np.float32)
        limit = jaxai.perturbation.lime_limit(masks, scores)
        expected = LinearRegression().fit(masks, scores, lime_weights(masks))
        np.testing.assert_allclose(limit.weights, expected.coef_, atol=2e-5)
        np.testing.assert_allclose(limit.intercept, expected.intercept_, atol=2e-5)
        np.testing.assert_allclose(limit.score, jaxai.fit_lime(masks, scores, alpha=0.0).score, atol=1e-5)

    def test_a_linear_score_is_its_own_limit(self):
        masks, truth = all_masks(6), np.arange(6, dtype=np.float32) - 2
        weights, intercept, score = jaxai.perturbation.lime_limit(masks, masks @ truth + 1)
        np.testing.assert_allclose(weights, truth, atol=1e-4)
        np.testing.assert_allclose(intercept, 1, atol=1e-4)
        np.testing.assert_allclose(score, 1, atol=1e-5)

    def test_product_of_two_superpixels_in_closed_form(self):
        # By symmetry both factors get the same weight, all others another (the paper's proposition 2).
        masks = all_masks(7)
        weights = np.asarray(jaxai.perturbation.lime_limit(masks, masks[:, 0] * masks[:, 1]).weights)
        np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)
        np.testing.assert_allclose(weights[2:], weights[2], atol=1e-5)
        assert 0.3 < weights[0] < 0.7 and abs(weights[2]) < 0.1

    def test_batch_and_errors(self):
        masks = all_masks(5)
        scores = np.random.RandomState(0).normal(size=(2, 32)).astype(np.float32)
        both = jaxai.perturbation.lime_limit(masks, scores)
        alone = jaxai.perturbation.lime_limit(masks, scores[1])
        np.testing.assert_allclose(both.weights[1], alone.weights, atol=1e-5)
        with pytest.raises(ValueError, match="one value a mask"):
            jaxai.perturbation.lime_limit(masks, scores[:, :-1])


@pytest.mark.slow
def test_used_masks_alone_count():
    masks, scores = draw()
    ones = jnp.ones((1, 17))
    whole = _lime_fit.fit_images(
        jnp.asarray(masks), jnp.asarray(scores)[None], ones, None, 0.25, 1.0, 120, shared=True
    )
    part = jaxai.fit_lime(masks[:120], scores[:120])
    np.testing.assert_allclose(whole.weights[0], part.weights, atol=1e-6)
    np.testing.assert_allclose(whole.score[0], part.score, atol=1e-5)
