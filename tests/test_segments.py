import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.segmentation import felzenszwalb, quickshift
from skimage.segmentation import slic as skimage_slic

import jaxai
from jaxai.perturbation import _fills, _segments


@pytest.fixture(scope="module")
def pictures(photos):
    cat, coffee = photos["cat"], photos["coffee"]
    return np.stack([cat[100:164, 150:230], coffee[100:164, 200:280]]).astype(np.float32) / 255


def check_labels(labels):
    for image in np.asarray(labels):
        assert np.array_equal(np.unique(image), np.arange(image.max() + 1))


def test_quickshift_is_that_of_lime_image(pictures):
    labels = jaxai.segment(pictures)
    expected = quickshift(pictures[0].astype(np.float64), kernel_size=4, max_dist=200, ratio=0.2)
    assert labels.dtype == jnp.int32 and labels.shape == pictures.shape[:3]
    # scikit-image breaks ties by noise and works in the precision of its input.
    agreement = (np.asarray(labels[0]) == expected).mean()
    assert agreement > 0.98
    check_labels(labels)


def test_each_image_alone_is_the_same(pictures):
    for method in ("quickshift", "slic", "felzenszwalb"):
        together = jaxai.segment(pictures, method=method)
        for index in range(2):
            alone = jaxai.segment(pictures[index : index + 1], method=method)
            assert np.array_equal(together[index], alone[0])
        check_labels(together)


def test_options_reach_scikit_image(pictures):
    labels = jaxai.segment(pictures[:1], method="slic", n_segments=12, compactness=20.0)
    expected = skimage_slic(pictures[0], n_segments=12, compactness=20.0, sigma=1.0, start_label=0)
    assert np.array_equal(labels[0], np.unique(expected, return_inverse=True)[1].reshape(expected.shape))
    labels = jaxai.segment(pictures[:1], method="felzenszwalb", min_size=300)
    expected = felzenszwalb(pictures[0], scale=100.0, sigma=0.5, min_size=300)
    assert np.array_equal(labels[0], expected)


def test_grid_of_a_tall_image():
    labels = jaxai.segment(np.zeros((2, 7, 4, 3), np.float32), method="grid", rows=3, columns=2)
    assert labels[1].tolist() == [[0, 0, 1, 1]] * 3 + [[2, 2, 3, 3]] * 2 + [[4, 4, 5, 5]] * 2


def test_one_channel_is_grey(pictures):
    grey = pictures[:1, ..., :1]
    assert np.array_equal(jaxai.segment(grey), jaxai.segment(np.repeat(grey, 3, -1)))


def test_photos_outside_the_range_are_refused(pictures):
    with pytest.raises(ValueError, match=r"in \[0, 1\].*got"):
        jaxai.segment(pictures * 255)
    with pytest.raises(ValueError, match="finite"):
        jaxai.segment(np.where(pictures > 0.5, np.nan, pictures))
    with pytest.raises(TypeError, match="floating"):
        jaxai.segment((pictures * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="`method` must be one of"):
        jaxai.segment(pictures, method="watershed")
    with pytest.raises(ValueError, match="one or three channels"):
        jaxai.segment(np.zeros((1, 4, 4, 2), np.float32))
    with pytest.raises(TypeError, match="no option"):
        jaxai.segment(pictures, method="grid", n=3)
    with pytest.raises(TypeError, match="grid has no option 'iterations'; it has .'rows', 'columns'."):
        jaxai.segment(pictures, method="grid", iterations=4)
    with pytest.raises(ValueError, match="does not fit"):
        jaxai.segment(pictures, method="grid", rows=65, columns=2)


def test_bad_segments_are_refused():
    images = jnp.zeros((2, 2, 3, 1))
    good = jnp.array([[0, 1, 1], [0, 2, 2]])
    assert _segments.prepare(good, images, None).count == 3
    assert _segments.prepare(good, images, 5).padded
    with pytest.raises(ValueError, match="without gaps.*no 1"):
        _segments.prepare(jnp.array([[0, 2, 2], [0, 2, 2]]), images, None)
    with pytest.raises(ValueError, match="image 1 has one superpixel"):
        _segments.prepare(jnp.stack([good, jnp.zeros((2, 3), int)]), images, None)
    with pytest.raises(ValueError, match="image 0 has -1"):
        _segments.prepare(good - 1, images, None)
    with pytest.raises(ValueError, match="shape"):
        _segments.prepare(good.T, images, None)
    with pytest.raises(TypeError, match="integer"):
        _segments.prepare(good.astype(float), images, None)
    with pytest.raises(ValueError, match="at least 3"):
        _segments.prepare(good, images, 2)
    with pytest.raises(ValueError, match="`num_segments` must be given"):
        jax.jit(lambda s: _segments.prepare(s, images, None).labels)(good)


@pytest.mark.parametrize("dtype", "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
def test_labels_of_any_integer_type(dtype):
    """Counting overflowed: 8 bits have no room for the number of their own labels."""
    count = 128 if dtype == "int8" else 256
    labels = np.arange(256).reshape(16, 16) % count
    images = jnp.zeros((2, 16, 16, 1))
    for given in (labels.astype(dtype), jnp.asarray(labels.astype(dtype)), [labels.astype(dtype)] * 2):
        found = _segments.prepare(given, images, None)
        assert (found.count, found.padded, found.labels.dtype) == (count, False, jnp.int32)
        assert np.array_equal(found.labels, [labels, labels])
    assert np.array_equal(
        jax.jit(lambda s: _segments.prepare(s, images, count).labels)(labels.astype(dtype))[1], labels
    )
    with jax.enable_x64(True):
        found = _segments.prepare(jnp.asarray(labels, dtype), images, None)
        assert (found.count, found.padded, found.labels.dtype) == (count, False, jnp.int32)


@pytest.mark.parametrize("large", [2**31, 2**32, 2**32 + 1, 2**62, 2**64 - 1])
def test_labels_that_32_bits_cannot_hold(large):
    """JAX cuts them to 32 bits, so that 2**32 was label 0; counting up to them takes all memory."""
    labels = np.array([[0, 1, 2], [0, 1, large]], np.uint64)
    with pytest.raises(ValueError, match=f"labels up to {large} but no 3"):
        _segments.prepare(labels, jnp.zeros((1, 2, 3, 1)), None)
    if large < 2**63:
        with pytest.raises(ValueError, match=f"image 0 has -{large}"):
            _segments.prepare(-labels.astype(np.int64), jnp.zeros((1, 2, 3, 1)), None)


@pytest.mark.slow
def test_lime_takes_64_bit_labels():
    images = jnp.ones((1, 4, 4, 1))
    labels = np.repeat(np.arange(4), 4).reshape(4, 4)
    explain = [
        jaxai.lime(
            lambda x: x.sum((1, 2)),
            images,
            lambda scores: scores[:, 0],
            segments=labels.astype(t),
            key=jax.random.key(0),
        )
        for t in (np.int32, np.int64, np.uint64)
    ]
    assert all(np.array_equal(e.weights, explain[0].weights) for e in explain)


def test_sums_and_paint_undo_each_other():
    labels = jnp.array([[[0, 1, 1], [2, 2, 2]], [[1, 0, 1], [1, 1, 1]]])
    values = jnp.array([[5.0, 6.0, 7.0], [8.0, 9.0, 0.0]])
    painted = _segments.paint(values, labels)
    assert painted.tolist() == [[[5, 6, 6], [7, 7, 7]], [[9, 8, 9], [9, 9, 9]]]
    assert _segments.sums(painted, labels, 3).tolist() == [[5, 12, 21], [8, 45, 0]]
    assert _segments.present(labels, 3).tolist() == [[1, 1, 1], [1, 1, 0]]


class TestFills:
    images = jnp.arange(24.0).reshape(1, 3, 4, 2)
    labels = jnp.array([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]]])

    def test_mean_of_each_superpixel(self):
        filled = np.asarray(_fills.background("mean", self.images, self.labels, 3))
        for label in range(3):
            inside = np.asarray(self.labels[0] == label)
            np.testing.assert_allclose(
                filled[0][inside], np.asarray(self.images)[0][inside].mean(0)[None].repeat(inside.sum(), 0)
            )

    def test_neighbours_by_length_of_border(self):
        filled = np.asarray(_fills.background("neighbours", self.images, self.labels, 3))
        means = [np.asarray(self.images)[0][np.asarray(self.labels[0] == s)].mean(0) for s in range(3)]
        # 0 and 1 share two pixel edges, each shares two with 2.
        np.testing.assert_allclose(filled[0, 0, 0], (means[1] + means[2]) / 2, rtol=1e-6)
        np.testing.assert_allclose(filled[0, 2, 0], (means[0] + means[1]) / 2, rtol=1e-6)

    def test_image_mean_value_and_colour(self):
        mean = _fills.background("image_mean", self.images, None, 0)
        np.testing.assert_allclose(mean[0, 1, 1], self.images.mean((0, 1, 2)))
        assert (_fills.background(3, self.images, None, 0) == 3).all()
        assert (_fills.background([1.0, 2.0], self.images, None, 0)[0, 0, 0] == jnp.array([1, 2])).all()

    @pytest.mark.slow
    def test_blur_is_scipys(self):
        from scipy.ndimage import gaussian_filter

        images = jax.random.uniform(jax.random.key(0), (1, 20, 31, 2))
        expected = gaussian_filter(
            np.asarray(images[0], np.float64), (1.5, 1.5, 0), mode="nearest", truncate=4
        )
        np.testing.assert_allclose(_fills.blur(images, 1.5)[0], expected, atol=1e-5)

    def test_noise_is_shared_by_the_batch(self):
        key = jax.random.key(0)
        twice = jnp.concatenate([self.images, self.images])
        filled = _fills.background("noise", twice, None, 0, key=key)
        assert (filled[0] == filled[1]).all()
        assert (filled[:1] == _fills.background("noise", self.images, None, 0, key=key)).all()

    def test_errors(self):
        with pytest.raises(ValueError, match="must be a value or one of"):
            _fills.background("grey", self.images, self.labels, 3)
        with pytest.raises(ValueError, match="broadcast"):
            _fills.background(jnp.zeros(3), self.images, self.labels, 3)
        with pytest.raises(TypeError, match="needs a `key`"):
            _fills.background("noise", self.images, None, 0)
        with pytest.raises(ValueError, match="needs superpixels"):
            _fills.background("mean", self.images, None, 0)
