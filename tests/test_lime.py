"""LIME against its reference, other packages and closed forms; samplings, tolerance, memory, errors."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.perturbation import LIME_PRESETS, _designs, _lime_fit

GOLDENS = Path(__file__).parent / "goldens"
TOYS = runpy.run_path(str(GOLDENS / "toy_game.py"))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDENS / "perturbation.npz")


def toy_model():
    first, second = map(jnp.asarray, TOYS["toy_parameters"]())

    def model(x):
        return jnp.tanh(x.reshape(len(x), -1) @ first) @ second

    return model


MODEL = toy_model()
IMAGE = jnp.asarray(TOYS["toy_image"]())[None]
SEGMENTS = jnp.asarray(TOYS["toy_segments"]())[None]
ALL = jnp.arange(4)[None]


class TestAgainstTheReference:
    def run(self, golden, **options):
        return jaxai.lime(MODEL, IMAGE, ALL, segments=SEGMENTS, masks=golden["toy_masks"], **options)

    def test_weights_on_the_same_masks(self, golden):
        e = self.run(golden)
        np.testing.assert_allclose(e.weights[0], golden["toy_weights"], atol=1e-5)
        np.testing.assert_allclose(e.intercept[0], golden["toy_intercepts"], atol=1e-5)
        np.testing.assert_allclose(e.score[0, 3], golden["toy_score_of_class_3"], atol=1e-4)

    def test_masks_of_the_figures(self, golden):
        e = self.run(golden)
        assert np.array_equal(e.mask(num_features=5)[0, 0], golden["toy_mask"])
        signed = e.mask(positive_only=False, num_features=6, min_weight=0.001)
        assert np.array_equal(signed[0, 0], golden["toy_mask_signed"])
        negative = e.mask(positive_only=False, negative_only=True, num_features=3)
        assert np.array_equal(negative[0, 0], golden["toy_mask_negative"])
        with pytest.raises(ValueError, match="exclude each other"):
            e.mask(negative_only=True)

    @pytest.mark.sampled
    @pytest.mark.parametrize(
        ("selection", "number"), [("highest_weights", 8), ("forward_selection", 4), ("lasso_path", 7)]
    )
    def test_feature_selection(self, golden, selection, number):
        e = self.run(golden, feature_selection=selection, num_features=number)
        np.testing.assert_allclose(e.weights[0], golden[f"toy_{selection}"], atol=1e-5)

    @pytest.mark.slow
    def test_auto_selection(self, golden):
        e = self.run(golden, num_features=4)
        np.testing.assert_allclose(e.weights[0], golden["toy_forward_selection"], atol=1e-5)

    @pytest.mark.slow
    def test_captum_preset(self, golden):
        preset = {**LIME_PRESETS["captum"]}
        e = jaxai.lime(
            MODEL, IMAGE, lambda s: s[:, 1], segments=SEGMENTS, masks=golden["captum_masks"], **preset
        )
        # Captum fits in float32, which stops 2e-4 from the float64 solution (tested in test_lime_fit).
        np.testing.assert_allclose(e.weights[0], golden["captum_lime"], atol=3e-4)
        assert ((e.weights[0] == 0) == (golden["captum_lime"] == 0)).all()

    @pytest.mark.slow
    def test_real_network(self, golden, lite0):
        from skimage.data import chelsea

        photo = chelsea()[38:262, 113:337]
        x = lite0.normalize(jnp.asarray(photo, jnp.float32)[None] / 255)
        masks = np.unpackbits(golden["lite_masks"], axis=1)[:, : golden["lite_weights"].shape[1]]
        # lime_image writes the mean colours into a copy of the float32 photo, as `fill="mean"` does.
        e = jaxai.lime(
            lite0.model,
            x,
            golden["lite_classes"][None],
            segments=golden["lite_segments"].astype(np.int32)[None],
            masks=masks,
        )
        np.testing.assert_allclose(e.predictions[0], golden["lite_probabilities"], atol=1e-3)
        np.testing.assert_allclose(e.weights[0], golden["lite_weights"], atol=1e-3)
        np.testing.assert_allclose(e.intercept[0], golden["lite_intercepts"], atol=1e-3)
        assert np.array_equal(e.targets[0], golden["lite_classes"])


def xplique(image, segments, masks, predict, fill=0.5):
    """Xplique's LIME, written out: pixel distances, exp(-d^2 / 45^2), Ridge(2)."""
    from sklearn.linear_model import Ridge

    shown = masks[:, segments][..., None]
    images = shown * image + (1 - shown) * fill
    distance = np.linalg.norm((images - image).reshape(len(masks), -1), axis=1)
    return Ridge(2).fit(masks, predict(images), np.exp(-(distance**2) / 45.0**2)).coef_


@pytest.mark.slow
def test_xplique_preset():
    masks = np.random.RandomState(0).randint(0, 2, (100, 20)).astype(np.float32)
    preset = {**LIME_PRESETS["xplique"]}
    e = jaxai.lime(MODEL, IMAGE, lambda s: s[:, 2], segments=SEGMENTS, masks=masks, **preset)
    expected = xplique(
        np.asarray(IMAGE[0]), TOYS["toy_segments"](), masks, lambda x: TOYS["toy_logits"](x)[:, 2]
    )
    np.testing.assert_allclose(e.weights[0], expected, atol=1e-5)


@pytest.mark.slow
def test_linear_score_by_hand():
    # The weight of a superpixel is the sum of lambda (x - fill) over it.
    image = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, :, :, None]
    coefficients = jnp.array([[1.0, -1.0, 2.0], [0.5, 0.0, 1.0]])
    labels = jnp.array([[[0, 0, 1], [2, 1, 1]]])
    e = jaxai.lime(
        lambda x: jnp.einsum("nhwc,hw->n", x, coefficients)[:, None],
        image,
        lambda s: s[:, 0],
        segments=labels,
        key=KEY,
        num_samples=200,
        fill=1.0,
        alpha=0.0,
    )
    np.testing.assert_allclose(e.weights[0], [-1.0, 2 * 2 + 0 * 4 + 5, 0.5 * 3], atol=1e-5)
    np.testing.assert_allclose(e.score, 1, atol=1e-6)
    assert e.heatmap[0].tolist() == np.asarray(e.weights)[0][np.asarray(labels[0])].tolist()
    shrunk = jaxai.lime(
        lambda x: x.sum((1, 2)), image, lambda s: s[:, 0], segments=labels, key=KEY, num_samples=400, fill=0.0
    )
    assert jnp.all(
        (shrunk.weights < jnp.array([3.0, 14.0, 4.0])) & (shrunk.weights > 0.9 * jnp.array([3.0, 14, 4]))
    )


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "paired", "stratified", "glime"])
def test_every_sampling_tends_to_the_closed_form(sampling):
    labels = jnp.asarray(TOYS["toy_segments"](2, 4))[None]
    run = dict(segments=labels, alpha=0.0, batch_size=256)
    masks = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.float32)
    exact = jaxai.lime(MODEL, IMAGE, 0, masks=masks, **run)
    limit = jaxai.perturbation.lime_limit(masks, exact.predictions)
    e = jaxai.lime(MODEL, IMAGE, 0, key=KEY, num_samples=4000, sampling=sampling, **run)
    error = np.abs(e.weights - limit.weights)
    assert (error < 5 * e.standard_error + 1e-6).all()
    assert error.max() < 0.02 * np.abs(limit.weights).max()


@pytest.mark.slow
def test_later_samplings_err_less():
    """Root-mean-square errors to the limit at 100 masks, eight superpixels of EfficientNet-Lite0."""
    table = jnp.asarray(np.load(GOLDENS / "shapley_lite.npz")["table"], jnp.float32)
    masks = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.float32)
    limit = np.asarray(jaxai.perturbation.lime_limit(masks, table).weights)

    def error(sampling):
        @jax.jit
        @jax.vmap
        def explain(key):
            width, present = jnp.float32(0.25), jnp.ones((1, 8))
            drawn = _designs.draw(key, present, width, sampling=sampling, samples=100, shared=True)
            scores = table[drawn.astype(jnp.int32) @ (1 << jnp.arange(8))][None]
            options = dict(shared=True, constant_weight=sampling == "glime")
            return _lime_fit.fit_images(drawn, scores, present, None, width, 1e-3, **options).weights[0]

        return np.sqrt(np.mean(np.square(explain(jax.random.split(KEY, 200)) - limit)))

    coins = error("uniform")
    for sampling in ("paired", "stratified", "glime"):
        assert error(sampling) < 0.9 * coins, sampling


@pytest.mark.slow
def test_standard_error_is_that_of_repetition():
    labels = jnp.asarray(TOYS["toy_segments"](2, 4))[None]
    runs = [
        jaxai.lime(
            MODEL,
            IMAGE,
            0,
            segments=labels,
            key=jax.random.key(s),
            num_samples=150,
            sampling="uniform",
            alpha=0,
        )
        for s in range(40)
    ]
    spread = np.std([r.weights[0] for r in runs], axis=0, ddof=1)
    claimed = np.mean([r.standard_error[0] for r in runs], axis=0)
    np.testing.assert_allclose(claimed, spread, rtol=0.5)
    np.testing.assert_allclose(claimed.mean(), spread.mean(), rtol=0.15)


@pytest.mark.slow
def test_designs():
    present = jnp.array([[1.0] * 9, [1.0] * 7 + [0.0] * 2])
    draw = lambda sampling, samples=200: _designs.draw(  # noqa: E731
        KEY, present, 0.25, sampling=sampling, samples=samples, shared=False
    )
    lime = draw("lime")
    assert (lime[0] == 1).all() and 0.45 < lime[1:].mean() < 0.55
    paired = draw("paired")
    assert (paired[::2] + paired[1::2] == 1).all()
    stratified = draw("stratified")
    assert stratified.shape == (2, 200, 9)
    counts = np.bincount(np.asarray(stratified[0].sum(1), int), minlength=10) / 200
    from scipy.stats import binom

    np.testing.assert_allclose(counts, binom.pmf(np.arange(10), 9, 0.5), atol=0.011)
    assert (stratified[1, :, 7:] == 0).all()
    # The kernel prefers masks that show much.
    assert draw("glime")[0].mean() > stratified[0].mean() + 0.05
    for sampling in ("paired", "glime"):
        assert np.array_equal(draw(sampling, 51), draw(sampling)[..., :51, :])


@pytest.mark.slow
def test_a_tolerance_stops_early():
    run = dict(segments=SEGMENTS, key=KEY, num_samples=1000, sampling="paired")
    full = jaxai.lime(MODEL, IMAGE, 0, **run)
    loose = float(full.standard_error.max()) * 1.8
    early = jaxai.lime(MODEL, IMAGE, 0, tolerance=loose, **run)
    used = early.predictions.shape[1]
    assert 128 <= used < 1000 and early.masks.shape == (used, 20)
    assert float(early.standard_error.max()) <= loose
    np.testing.assert_allclose(early.predictions, full.predictions[:, :used], atol=1e-6)
    again = jaxai.lime(MODEL, IMAGE, 0, segments=SEGMENTS, masks=early.masks)
    np.testing.assert_allclose(early.weights, again.weights, atol=1e-6)
    never = jaxai.lime(MODEL, IMAGE, 0, tolerance=0.0, **run)
    np.testing.assert_allclose(never.weights, full.weights, atol=1e-6)
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda key: jaxai.lime(MODEL, IMAGE, 0, segments=SEGMENTS, key=key, tolerance=1.0).weights)(
            KEY
        )


@pytest.mark.slow
def test_constant_image_and_model():
    e = jaxai.lime(MODEL, jnp.ones_like(IMAGE), segments=SEGMENTS, key=KEY, num_samples=30)
    # Every superpixel is its own mean, so nothing ever changes.
    assert (e.weights == 0).all() and jnp.isfinite(e.heatmap).all() and (e.score == 1).all()


@pytest.mark.slow
def test_memory_does_not_grow_with_masks():
    labels = jnp.asarray(TOYS["toy_segments"](2, 4))[None]

    def peak(samples, size):
        def run(x):
            options = dict(segments=labels, key=KEY, num_samples=samples, num_segments=8, batch_size=size)
            return jaxai.lime(MODEL, x, 0, **options).weights

        return jax.jit(run).lower(IMAGE).compile().memory_analysis().temp_size_in_bytes

    image = IMAGE.size * 4
    few, many = peak(64, 8), peak(6400, 8)
    # The masks and a few arrays of their shape are kept, images never.
    assert many - few < 6400 * 8 * 4 * 12 < 6400 * image / 20
    assert peak(64, 64) > few + 40 * image


def test_errors():
    run = dict(segments=SEGMENTS, key=KEY, num_samples=20)
    with pytest.raises(TypeError, match="`key` is needed"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS)
    with pytest.raises(TypeError, match="typed key"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS, key=jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="`num_samples` must be at least 2"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS, key=KEY, num_samples=1)
    for name in ("sampling", "distance", "regression", "feature_selection"):
        with pytest.raises(ValueError, match=f"`{name}` must be one of"):
            jaxai.lime(MODEL, IMAGE, **run, **{name: "best"})
    with pytest.raises(ValueError, match="draws masks by their cosine distance"):
        jaxai.lime(MODEL, IMAGE, **run, sampling="glime", distance="pixel_cosine")
    with pytest.raises(ValueError, match=r"`masks` must be \[samples, 20\]"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS, masks=np.ones((5, 19)))
    with pytest.raises(ValueError, match="all of them are equal"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS, masks=np.ones((5, 20)))
    with pytest.raises(ValueError, match="one superpixel only"):
        jaxai.lime(MODEL, IMAGE, segments=jnp.zeros_like(SEGMENTS), key=KEY)
    with pytest.raises(ValueError, match="without gaps"):
        jaxai.lime(MODEL, IMAGE, segments=SEGMENTS * 2, key=KEY)
    with pytest.raises(ValueError, match="classes 0 to 3; got 4"):
        jaxai.lime(MODEL, IMAGE, 4, **run)
    with pytest.raises(ValueError, match="NaN or infinite scores: 20 of 20"):
        jaxai.lime(lambda x: MODEL(x) * jnp.log(-jnp.mean(x) - 1), IMAGE, 0, **run)
    with pytest.raises(ValueError, match="singular"):
        jaxai.lime(MODEL, IMAGE, 0, segments=SEGMENTS, key=KEY, num_samples=10, alpha=0.0)
    with pytest.raises(ValueError, match="`kernel_width` must be a positive"):
        jaxai.lime(MODEL, IMAGE, 0, **run, kernel_width=0.0)
    with pytest.raises(ValueError, match="`batch_size` must be a positive"):
        jaxai.lime(MODEL, IMAGE, 0, **run, batch_size=0)
    with pytest.raises(TypeError, match="floating point"):
        jaxai.lime(MODEL, jnp.zeros((1, 24, 32, 3), jnp.uint8), 0, **run)
