"""Beyond single images: MACO, photos, exemplars, factors, maps of activations, reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai import features
from jaxai.features import atlas as atlas_function
from jaxai.features import maco as maco_function
from jaxai.features import objectives, parametrize
from jaxai.features._maco import NATURAL, Phase
from jaxai.features._measure import percentile
from jaxai.features._report import held_out_views, spectral_slope, variation

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


def relu_layer(kernel, x):
    return jax.nn.relu(
        jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        + 1
    )


NET = jaxai.chain(
    {
        "a": Partial(relu_layer, 0.3 * jax.random.normal(jax.random.key(1), (3, 3, 3, 6))),
        "logits": Partial(lambda w, x: x.mean((1, 2)) @ w, jax.random.normal(jax.random.key(3), (6, 4))),
    }
)
PHOTOS = jax.random.uniform(jax.random.key(4), (5, 12, 12, 3))
QUICK = {"key": KEY, "steps": 3}


def test_a_phase_image_has_the_given_spectrum():
    rng = np.random.default_rng(0)
    magnitude = rng.uniform(1, 2, size=(3, 8, 6)).astype(np.float32)
    phase = rng.uniform(-3, 3, size=(3, 8, 6)).astype(np.float32)
    phases = Phase(jnp.asarray(magnitude), standardize=False)
    image = np.asarray(phases.free(jnp.asarray(phase), (8, 10, 3)))
    expected = np.fft.irfft2(magnitude * np.exp(1j * phase), (8, 10)).transpose(1, 2, 0)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    # Columns without a mirror image keep their magnitudes whatever the phase.
    np.testing.assert_allclose(
        np.abs(np.fft.rfft2(image.transpose(2, 0, 1)))[..., 1:5], magnitude[..., 1:5], rtol=1e-4
    )


def test_standardised_phases_are_the_authors():
    rng = np.random.default_rng(0)
    magnitude = rng.uniform(1, 2, size=(3, 8, 5)).astype(np.float32)
    phase = rng.normal(2, 3, size=(3, 8, 5)).astype(np.float32)
    still = (phase - phase.mean()) / (phase.std() + 1e-5)
    free = np.fft.irfft2(magnitude * np.exp(1j * still), (8, 8)).transpose(1, 2, 0)
    free = (free - free.mean()) / (free.std() + 1e-5)
    expected = 1 / (1 + np.exp(-(free @ parametrize.COLOR_MATRIX.T)))
    found = Phase(jnp.asarray(magnitude)).render(jnp.asarray(phase), (8, 8, 3))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_power_law_is_fitted_exactly():
    law = ((10.0, 1.5), (20.0, 1.1), (30.0, 0.9))
    fitted = jaxai.features.fit_power_law(jaxai.features.power_law_spectrum((16, 16), law=law))
    np.testing.assert_allclose(fitted, law, rtol=1e-3)


def test_the_default_law_is_that_of_four_photographs(photos):
    squares = []
    for photo in photos.values():
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = jnp.asarray(photo[top : top + side, left : left + side] / 255, jnp.float32)
        squares.append(jax.image.resize(square, (256, 256, 3), "linear"))
    fitted = np.asarray(jaxai.features.fit_power_law(jaxai.features.natural_spectrum(jnp.stack(squares))))
    np.testing.assert_allclose(fitted, NATURAL, rtol=0.01)


@pytest.mark.slow
def test_maco_moves_phases_only_and_maps_importance():
    found = jaxai.maco(NET, ["a:1", "a:2"], size=16, crops=4, **QUICK)
    assert found.images.shape == (2, 16, 16, 3)
    assert found.importance.shape == (2, 16, 16)
    free = parametrize.decorrelate_colors(parametrize.logit(found.images[0], 1e-6))
    made = np.abs(np.fft.rfft2(np.asarray(free).transpose(2, 0, 1)))[..., 1:8]
    law = np.asarray(jaxai.features.power_law_spectrum((16, 16)))[..., 1:8]
    np.testing.assert_allclose(made / made.mean(), law / law.mean(), rtol=0.01)


@pytest.mark.slow
def test_maco_with_a_measured_spectrum_and_bad_ones():
    spectrum = jaxai.features.natural_spectrum(PHOTOS)
    assert spectrum.shape == (3, 12, 7)
    assert jaxai.maco(NET, "a:1", size=12, crops=2, spectrum=spectrum, **QUICK).images.shape == (1, 12, 12, 3)
    with pytest.raises(ValueError, match="magnitude spectrum"):
        jaxai.maco(NET, "a:1", size=14, crops=2, spectrum=spectrum, **QUICK)
    with pytest.raises(ValueError, match="`spectrum` must be"):
        jaxai.maco(NET, "a:1", size=14, spectrum=[1.0, 2.0], **QUICK)


@pytest.mark.slow
def test_accentuated_photos_stay_close_and_rise():
    # A small step: Adam's first steps are of the size of its rate.
    import optax

    wanted = [f"a:{c}" for c in (1, 2, 3, 1, 2)]
    options = {"key": KEY, "parametrization": "pixels", "optimizer": optax.sgd(30.0), "steps": 8}
    loose = jaxai.accentuate(NET, PHOTOS, wanted, layer="a", strength=0.0, **options)
    tight = jaxai.accentuate(NET, PHOTOS, wanted, layer="a", strength=1.0, **options)
    before = jnp.diagonal(jaxai.features.measure(NET, wanted, PHOTOS))
    assert (jnp.diagonal(jaxai.features.measure(NET, wanted, loose.images)) > before).all()
    assert jnp.abs(tight.images - PHOTOS).mean() < jnp.abs(loose.images - PHOTOS).mean()
    with pytest.raises(ValueError, match="one for each of 5 photos"):
        jaxai.accentuate(NET, PHOTOS, ["a:1"] * 2, layer="a", key=KEY)


@pytest.mark.slow
def test_inversion_comes_closer_and_caricature_exaggerates():
    options = {"layer": "a", "key": KEY, "parametrization": "pixels", "steps": 20}
    rebuilt = jaxai.invert(NET, PHOTOS[:2], smoothness=0.0, **options)
    history = np.asarray(rebuilt.history)
    assert (history[:, -1] > 0.7 * history[:, 0]).all()
    acts, wanted = (jaxai.features.layer_activations(NET, x, layer="a") for x in (rebuilt.images, PHOTOS[:2]))
    gap = jnp.square(acts - wanted).mean((1, 2, 3)) / jnp.square(wanted).mean((1, 2, 3))
    assert (gap < -0.8 * history[:, 0]).all()
    loud = jaxai.caricature(NET, PHOTOS[:2], **options)
    assert (loud.history[:, -1] > loud.history[:, 0]).all()


def test_measured_values_are_the_objectives():
    wanted = ["a:1", "a", "logits:3", "a:2@1,2", objectives.channel("a", 1) - 2 * objectives.layer("a")]
    values = np.asarray(jaxai.features.measure(NET, wanted, PHOTOS, normalize=lambda x: 2 * x, batch_size=2))
    acts = np.asarray(NET(2 * PHOTOS, stop="a"))
    channel, layer = acts[..., 1].mean((1, 2)), (acts**2).mean((1, 2, 3))
    expected = [channel, layer, np.asarray(NET(2 * PHOTOS))[:, 3], acts[:, 1, 2, 2], channel - 2 * layer]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="channels 0 to 5"):
        jaxai.features.measure(NET, "a:6", PHOTOS)


def test_exemplars_are_the_best_photos():
    values = np.asarray(jaxai.features.measure(NET, ["a:1", "a:2"], PHOTOS))
    found = jaxai.features.exemplars(NET, ["a:1", "a:2"], PHOTOS, top=2)
    np.testing.assert_array_equal(found.indices, np.argsort(-values, 1)[:, :2])
    np.testing.assert_allclose(found.values, -np.sort(-values, 1)[:, :2], rtol=1e-6)
    assert jaxai.features.exemplars(NET, "a:1", PHOTOS, top=99).indices.shape == (1, 5)


def test_percentile_counts_what_is_below():
    np.testing.assert_array_equal(percentile(jnp.array([2.5]), jnp.array([[1.0, 2.0, 3.0, 4.0]])), [50.0])


def test_factors_are_lee_and_seungs():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(6, 4)).astype(np.float32)
    left, right = jax.random.split(KEY)
    level = np.sqrt(x.mean() / 2) + 1e-6
    w = level * np.asarray(jax.random.uniform(left, (6, 2), minval=0.5, maxval=1.5), np.float64)
    h = level * np.asarray(jax.random.uniform(right, (2, 4), minval=0.5, maxval=1.5), np.float64)
    for _ in range(10):
        h = h * (w.T @ x) / (w.T @ w @ h)
        w = w * (x @ h.T) / (w @ h @ h.T)
    found = jaxai.features.factorize(x, factors=2, key=KEY, steps=10)
    np.testing.assert_allclose(found.maps @ found.directions, w @ h, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.error, np.linalg.norm(x - w @ h) / np.linalg.norm(x), rtol=1e-3)


def test_factors_of_a_sum_of_parts():
    rng = np.random.default_rng(1)
    parts = np.array([[1, 0, 0, 2], [0, 3, 1, 0]], np.float32)
    x = rng.uniform(size=(40, 2)).astype(np.float32) @ parts
    found = jaxai.features.factorize(x, factors=2, key=KEY, steps=500)
    assert found.error < 0.02
    unit = parts / np.linalg.norm(parts, axis=1, keepdims=True)
    assert (np.asarray(found.directions @ unit.T).max(0) > 0.98).all()
    zero = jaxai.features.factorize(jnp.zeros((4, 3)), factors=2, key=KEY, steps=3)
    assert np.isfinite(zero.maps).all()
    with pytest.raises(ValueError, match="acts"):
        jaxai.features.factorize(jnp.zeros(3), factors=2, key=KEY)


def test_channel_factors_of_photos():
    found = jaxai.features.channel_factors(NET, PHOTOS, layer="a", factors=3, key=KEY, batch_size=2)
    assert found.maps.shape == (5, 6, 6, 3)
    assert found.directions.shape == (3, 6)
    assert found.error < 0.3


def test_embedding_keeps_clusters_together():
    rng = np.random.default_rng(0)
    centers = 10 * rng.normal(size=(3, 8))
    points = np.repeat(centers, 12, 0) + rng.normal(size=(36, 8))
    from jaxai.features._atlas import embed

    plane = np.asarray(embed(points, key=KEY, perplexity=8, steps=250)).reshape(3, 12, 2)
    assert np.isfinite(plane).all()
    spread = np.linalg.norm(plane - plane.mean(1, keepdims=True), axis=-1).max()
    middles = plane.mean(1)
    apart = min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread
    with pytest.raises(ValueError, match="four or more"):
        embed(points[:3], key=KEY)


@pytest.mark.slow
def test_an_atlas_counts_every_activation():
    options = {"layer": "a", "key": KEY, "grid": (2, 3), "num_samples": 4, "size": 12, "steps": 2}
    found = jaxai.atlas(NET, PHOTOS, parametrization="pixels", transforms=None, redirect=0, **options)
    assert found.images.shape == (2, 3, 12, 12, 3)
    assert int(found.counts.sum()) == 20
    acts = np.asarray(NET(PHOTOS, stop="a"))
    chosen = acts[tuple(np.asarray(found.sources).T)]
    sums = (np.asarray(found.directions) * np.asarray(found.counts)[..., None]).sum((0, 1))
    np.testing.assert_allclose(sums, chosen.sum(0), rtol=1e-4)
    assert len({tuple(s) for s in np.asarray(found.sources)}) == 20
    for cell in zip(*np.nonzero(np.asarray(found.counts) == 0), strict=True):
        np.testing.assert_array_equal(found.images[cell], 0.5)
    # A cell speaks for the class that gains most where the whole layer holds its mean, above that of all.
    head = lambda vector: np.asarray(NET(jnp.broadcast_to(vector, (1, *acts.shape[1:])), start="a"))[0]  # noqa: E731
    base = head(jnp.asarray(chosen.mean(0)))
    for cell in zip(*np.nonzero(np.asarray(found.counts)), strict=True):
        assert int(found.classes[cell]) == int((head(found.directions[cell]) - base).argmax())
    assert (np.asarray(found.classes)[np.asarray(found.counts) == 0] == -1).all()
    # Some cells at a time, as the command draws them.
    from jaxai.features._atlas import prepare

    todo = prepare(
        NET,
        PHOTOS,
        parametrization="pixels",
        transforms=None,
        redirect=0,
        normalize=None,
        batch_size=None,
        **options,
    )
    some = [np.asarray(todo.draw(todo.cells[[i, i]]))[0] for i in range(len(todo.cells))]
    np.testing.assert_allclose(todo.finish(np.stack(some)).images, found.images, atol=1e-6)
    with pytest.raises(ValueError, match="must have activations \\[batch, height, width, channels\\]"):
        jaxai.atlas(NET, PHOTOS, layer="logits", key=KEY)


@pytest.mark.slow
def test_a_semantic_dictionary_names_channels():
    found = jaxai.features.semantic_dictionary(
        NET,
        PHOTOS[0],
        layer="a",
        top=2,
        size=12,
        parametrization="pixels",
        transforms=None,
        redirect=0,
        **QUICK,
    )
    acts = np.asarray(NET(PHOTOS[:1], stop="a"))[0]
    assert found.images.shape == (6, 6, 12, 12, 3)
    np.testing.assert_array_equal(found.channels, np.argsort(-acts, -1, kind="stable")[..., :2])
    np.testing.assert_allclose(found.magnitudes, np.linalg.norm(acts, axis=-1), rtol=1e-5)
    with pytest.raises(ValueError, match="height, width, channels"):
        jaxai.features.semantic_dictionary(NET, PHOTOS, layer="a", **QUICK)


@pytest.mark.slow
def test_report_measures():
    other = {"twin": (NET, lambda x: x, 8)}
    wanted = [f"logits:{c}" for c in (0, 1, 2, 3, 0)]
    found = features.report(
        NET, PHOTOS, wanted, key=KEY, photos=PHOTOS, others=other, classes=[0, 1, 2, 3, 0], num_views=2
    )
    scores = np.asarray(NET(PHOTOS))
    own = scores[np.arange(5), [0, 1, 2, 3, 0]]
    np.testing.assert_allclose(found.activation, own, rtol=1e-4)
    below = [100 * (scores[:, c] < own[i] - 1e-6).mean() for i, c in enumerate((0, 1, 2, 3, 0))]
    np.testing.assert_allclose(found.percentile, below, atol=1e-3)
    assert found.transfer.shape == (5, 1)
    views = held_out_views(PHOTOS, key=KEY, views=2)
    assert views.shape == (5, 2, 12, 12, 3)
    seen = np.asarray(NET(views[3])).mean(0)[3]
    np.testing.assert_allclose(found.held_out[3] * own[3], seen, rtol=1e-3)
    rows = found.as_rows([f"image {i}" for i in range(5)])
    assert rows[0]["image"] == "image 0"
    assert len(rows[0]["transfer"]) == 1
    with pytest.raises(ValueError, match="one objective"):
        features.report(NET, PHOTOS, wanted[:2], key=KEY)


@pytest.mark.slow
def test_naturalness_of_known_images():
    rng = np.random.default_rng(0)
    white = rng.normal(size=(1, 64, 64, 1))
    f = parametrize.frequencies(64, 64)
    pink = np.fft.irfft2(np.exp(2j * np.pi * rng.uniform(size=f.shape)) / np.maximum(f, 1 / 64), (64, 64))
    assert abs(float(spectral_slope(jnp.asarray(white))[0])) < 0.1
    assert abs(float(spectral_slope(jnp.asarray(pink[None, :, :, None]))[0]) + 1) < 0.1
    ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None, None] / 10, (1, 8, 8, 3))
    np.testing.assert_allclose(variation(ramp), [0.05], rtol=1e-5)
    flat = features.report(NET, jnp.full((1, 12, 12, 3), 0.99), "a:1", key=KEY)
    assert float(flat.clipped[0]) == 1.0
    assert float(flat.saturation[0]) < 1e-6
    assert np.isnan(float(flat.percentile[0]))


@pytest.mark.slow
def test_seed_stability():
    options = {"size": 12, "parametrization": "pixels", "transforms": None, "redirect": 0, **QUICK}
    found = jaxai.features.seed_stability(NET, ["a:1", "a:2"], layer="a", num_seeds=3, **options)
    assert found.likeness.shape == found.spread.shape == (2,)
    assert (found.likeness > 0.5).all()
    assert (found.likeness <= 1 + 1e-5).all()
    assert (found.spread >= 0).all()
    with pytest.raises(ValueError, match="at least 2"):
        jaxai.features.seed_stability(NET, "a:1", layer="a", num_seeds=1, **options)


def test_public_names_are_functions():
    assert callable(atlas_function)
    assert callable(maco_function)
    assert callable(jaxai.visualize)
    assert callable(features.report)
