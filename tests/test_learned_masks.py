import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai.perturbation._extremal_perturbation import smooth_maximum
from jaxai.perturbation._fills import blur

KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 16, 24, 3)).at[1].multiply(0.8)


def model(x):
    """Two classes that look at opposite corners."""
    return 9 * jnp.stack([x[:, :8, :12].mean((1, 2, 3)), x[:, 8:, 12:].mean((1, 2, 3))], axis=1)


def extremal(x, t, **options):
    options = {"variant": "preserve", "steps": 200, "area": 0.25, "stride": 3, "sigma": 4.0, **options}
    return jaxai.extremal_perturbation(model, x, t, fill=0.0, flip=False, jitter=0, **options)


def meaningful(x, t, **options):
    return jaxai.meaningful_perturbation(
        model, x, t, key=KEY, steps=40, grid=(4, 6), jitter=1, fill=0.0, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [extremal, meaningful])
def test_corners_and_batches(method):
    both = method(IMAGES, jnp.array([[0, 1], [1, 0]]))
    assert both.shape == (2, 2, 16, 24)
    assert both.min() >= 0 and both.max() <= 1
    first, second = both[0, 0], both[0, 1]
    assert first[:8, :12].mean() > 2 * first[8:, 12:].mean()
    assert second[8:, 12:].mean() > 2 * second[:8, :12].mean()

    alone = method(IMAGES[1:], jnp.array([1]))
    np.testing.assert_allclose(alone[0], both[1, 0], atol=1e-4)
    np.testing.assert_allclose(method(IMAGES, jnp.array([0, 1]), batch_size=1)[1], both[1, 0], atol=1e-4)
    called = method(IMAGES[:1], lambda s: s[:, 1] if method is extremal else jax.nn.softmax(s)[:, 1])
    np.testing.assert_allclose(called[0], second, atol=1e-4)


@pytest.mark.slow
def test_area_is_kept():
    assert abs(float(extremal(IMAGES[:1], 0).mean()) - 0.25) < 0.05


@pytest.mark.slow
def test_variants():
    deleted = extremal(IMAGES[:1], 0, variant="delete")[0]
    dual = extremal(IMAGES[:1], 0, variant="dual")[0]
    for mask in (deleted, dual):
        assert mask[:8, :12].mean() > 2 * mask[8:, 12:].mean()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("variant", "size"), [("dual", (64, 64)), ("preserve", (50, 75)), ("delete", (48, 64))]
)
@pytest.mark.slow
def test_a_constant_score_prefers_no_place(variant, size):
    photo = jax.random.uniform(KEY, (1, *size, 3))
    mask = jaxai.extremal_perturbation(
        lambda x: jnp.ones((len(x), 2)), photo, 0, variant=variant, steps=40, stride=4, sigma=8.0
    )[0]
    row, column = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None]
    band = (jnp.minimum(row, size[0] - 1 - row) < 6) | (jnp.minimum(column, size[1] - 1 - column) < 6)
    assert mask.sum() > 0
    assert abs((mask * band).sum() / mask.sum() - band.mean()) < 0.05


def test_the_unit_of_the_score_does_not_matter():
    expected = extremal(IMAGES[:1], 0)
    scaled = extremal(IMAGES[:1], lambda s: 0.01 * s[:, 0] - 3)
    np.testing.assert_allclose(scaled, expected, atol=1e-3)


# Outlines of the objects in the network's crops, drawn by hand: (column, row).
FLOWER = [(42, 112), (46, 88), (60, 64), (84, 50), (106, 44), (128, 50), (152, 60), (170, 84), (178, 112)]
FLOWER += [(172, 140), (160, 164), (140, 180), (112, 188), (84, 182), (60, 166), (44, 142)]
CAT = [(0, 0), (198, 0), (200, 30), (222, 60), (223, 100), (214, 150), (200, 185), (160, 205), (120, 212)]
CAT += [(80, 205), (60, 190), (30, 165), (0, 140)]
ROCKET = [(108, 76), (113, 66), (118, 76), (121, 110), (122, 210), (137, 212), (137, 223), (84, 223)]
ROCKET += [(84, 212), (106, 210), (106, 110)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "outline"), [("flower", FLOWER), ("cat", CAT), ("rocket", ROCKET)])
def test_masks_of_photos_lie_on_the_object(name, outline, lite0, photos):
    from scipy.ndimage import distance_transform_edt
    from skimage.draw import polygon2mask
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("flower.jpg") if name == "flower" else photos[name]
    images = lite0.preprocess(photo)
    target = int(lite0.model(images).argmax())
    mask = jaxai.extremal_perturbation(lite0.model, images, target)
    area = float(mask.mean())
    assert abs(area - 0.1) < 0.03

    def kept(masks):
        shown = masks[..., None] * images + (1 - masks[..., None]) * blur(images, 20.0)
        return float(lite0.model(shown)[0, target])

    rows, columns = np.mgrid[:224, :224]
    away = np.hypot(rows - 111.5, columns - 111.5)
    disk = jnp.asarray(away <= np.quantile(away, area), jnp.float32)[None]
    assert kept(mask) > kept(disk)
    # A bump is flat up to half its radius, 10.5 pixels, which is more than the rocket is wide.
    inside = polygon2mask((224, 224), np.array(outline)[:, ::-1])
    near = distance_transform_edt(~inside) <= (10.5 if name == "rocket" else 0)
    share = float((mask[0] * near).sum() / mask[0].sum())
    assert share > 0.6 and share > near.mean()


@pytest.mark.slow
def test_smooth_maximum_by_hand():
    heights = jnp.zeros((1, 3, 4)).at[0, 1, 2].set(0.7)
    mask = np.asarray(smooth_maximum(heights, 4, 3.0)[0])
    # One bump in the middle of its cell, (5.5, 9.5): about its height there, nothing far away.
    assert mask.shape == (12, 16)
    assert 0.6 < mask[5, 9] <= 0.75 and mask[11, 0] < 1e-5
    assert mask[5, 9] > mask[5, 12] > mask[5, 14]
    np.testing.assert_allclose(mask[5, 8], mask[5, 11], rtol=1e-5)
    # Equal bumps prefer no place.
    np.testing.assert_allclose(smooth_maximum(jnp.ones((1, 3, 4)), 4, 3.0), 1, atol=1e-6)
    half = np.asarray(smooth_maximum(jnp.full((1, 3, 4), 0.5), 4, 3.0))
    np.testing.assert_allclose(half, np.tile(half[:, :4, :4], (1, 3, 4)), atol=1e-6)


def test_flat_images_are_finite():
    flat = jnp.zeros((1, 16, 24, 3))
    assert jnp.isfinite(meaningful(flat, 0)).all() and jnp.isfinite(extremal(flat, 0)).all()


def test_errors():
    with pytest.raises(ValueError, match="`area` must lie"):
        jaxai.extremal_perturbation(model, IMAGES, 0, area=1.0)
    with pytest.raises(ValueError, match="`variant` must be one of"):
        jaxai.extremal_perturbation(model, IMAGES, 0, variant="hide")
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        jaxai.extremal_perturbation(model, IMAGES, 0, sigma=0.0)
    with pytest.raises(ValueError, match="`steps` must be a positive"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=KEY, steps=0)
    with pytest.raises(ValueError, match="`jitter` must be"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=KEY, jitter=-1)
    with pytest.raises(ValueError, match="`jitter` must be"):
        jaxai.extremal_perturbation(model, IMAGES, 0, jitter=-1)
    with pytest.raises(TypeError, match="typed key"):
        jaxai.meaningful_perturbation(model, IMAGES, 0, key=3)
