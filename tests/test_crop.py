"""Photos of every kind become squares in [0, 1]; what is not a photo is said in one line."""

import pickle
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxai.models.crop import crop, dimensions, fit, placement

SIZE = 16
square = partial(crop, size=SIZE)


def colours(height=SIZE, width=SIZE, channels=3):
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def close(result, expected, atol=1e-6):
    assert result.shape == (1, SIZE, SIZE, 3) and result.dtype == np.float32
    np.testing.assert_allclose(result[0], np.broadcast_to(expected, (SIZE, SIZE, 3)), atol=atol)


def test_a_square_of_the_right_size_keeps_its_values():
    pixels = colours()
    exact = pixels.astype(np.float32) / 255
    for photo in (pixels, Image.fromarray(pixels), exact, exact.astype(np.float64)):
        np.testing.assert_array_equal(square(photo)[0], exact)


def test_paths_are_read(tmp_path):
    pixels = colours()
    Image.fromarray(pixels).save(tmp_path / "x.png")
    close(square(tmp_path / "x.png"), pixels / 255)
    close(square(str(tmp_path / "x.png")), pixels / 255)


@pytest.mark.parametrize(("height", "width"), [(SIZE, 40), (40, SIZE), (SIZE, SIZE + 1)])
def test_the_centre_is_taken(height, width):
    pixels = colours(height, width)
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    close(square(pixels), pixels[top : top + SIZE, left : left + SIZE] / 255)


def test_shrinking_averages():
    """A checkerboard of single pixels turns grey instead of aliasing to black or white."""
    board = (np.indices((160, 160)).sum(0) % 2 * 255).astype(np.uint8)
    close(square(np.stack([board] * 3, -1)), 0.5, atol=0.02)
    close(square(np.stack([board] * 3, -1) / 255.0), 0.5, atol=0.02)


def test_bytes_and_floats_agree_when_resized():
    pixels = colours(50, 70)
    np.testing.assert_allclose(square(pixels), square(pixels / 255.0), atol=0.01)


def test_resized_floats_stay_in_range():
    """Bicubic overshoots at edges."""
    edge = np.zeros((40, 40, 3))
    edge[:, 20:] = 1
    result = np.asarray(square(edge))
    assert result.min() >= 0 and result.max() <= 1


def test_a_list_is_a_batch(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "x.png")
    photos = [colours(30, 20), tmp_path / "x.png", Image.fromarray(colours()), colours() / 255.0]
    batch = square(photos)
    assert batch.shape == (4, SIZE, SIZE, 3)
    for one, photo in zip(batch, photos, strict=True):
        np.testing.assert_array_equal(one, square(photo)[0])


def test_one_pixel_fills_the_square():
    close(square(np.array([[[10, 20, 30]]], np.uint8)), np.array([10, 20, 30]) / 255)
    close(square(np.array([[[0.25, 0.5, 1.0]]])), np.array([0.25, 0.5, 1.0]))


class TestModes:
    def test_grey(self):
        grey = colours(channels=1)[..., 0]
        expected = np.stack([grey] * 3, -1) / 255
        for photo in (Image.fromarray(grey), grey, grey[..., None], grey / 255.0):
            close(square(photo), expected)

    def test_black_and_white(self):
        bits = colours(channels=1)[..., 0] > 127
        expected = np.stack([bits] * 3, -1)
        close(square(Image.fromarray(bits)), expected)
        close(square(bits), expected)

    def test_transparency_lies_on_white(self):
        pixels = colours(channels=4)
        colour, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
        expected = colour * alpha + 1 - alpha
        close(square(Image.fromarray(pixels)), expected, atol=0.005)
        close(square(pixels, alpha=True), expected)
        close(square(pixels / 255.0, alpha=True), expected)

    def test_transparent_grey(self):
        pixels = colours(channels=2)
        alpha = pixels[..., 1:] / 255
        expected = np.repeat(pixels[..., :1] / 255 * alpha + 1 - alpha, 3, -1)
        close(square(Image.fromarray(pixels)), expected, atol=0.005)

    def test_palette(self, tmp_path):
        image = Image.fromarray(colours()).quantize(8)
        close(square(image), np.asarray(image.convert("RGB")) / 255)
        image.save(tmp_path / "x.png", transparency=0)
        transparent = np.asarray(image) == 0
        np.testing.assert_array_equal(np.asarray(square(tmp_path / "x.png"))[0][transparent], 1)

    @pytest.mark.parametrize("suffix", ["png", "tiff"])
    def test_sixteen_bits(self, tmp_path, suffix):
        deep = np.random.default_rng(0).integers(0, 65536, (SIZE, SIZE), dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
        expected = np.stack([deep] * 3, -1) / 65535
        close(square(tmp_path / f"x.{suffix}"), expected)
        close(square(deep), expected)

    @pytest.mark.parametrize("dtype", [">u2", ">f4", ">f8"])
    def test_bytes_in_the_other_order(self, dtype):
        values = np.random.default_rng(0).random((SIZE, SIZE, 3))
        values = (values * 65535).astype(np.uint16) if dtype == ">u2" else values.astype(np.float32)
        np.testing.assert_array_equal(square(values.astype(dtype)), square(values))

    def test_sixteen_bit_colour(self):
        deep = np.random.default_rng(0).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
        close(square(deep), deep / 65535)

    def test_float_images(self):
        values = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
        close(square(Image.fromarray(values)), np.stack([values] * 3, -1))

    def test_cmyk(self, tmp_path):
        image = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))
        image.save(tmp_path / "x.jpg", quality=95)
        close(square(tmp_path / "x.jpg"), np.array([1, 0, 0]), atol=0.02)

    def test_the_cameras_turn_is_obeyed(self, tmp_path):
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[: SIZE // 2] = 255
        turned = Image.fromarray(np.rot90(pixels))
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(tmp_path / "x.png", exif=exif)
        close(square(tmp_path / "x.png"), pixels / 255)

    def test_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        close(square(tmp_path / "x.gif", page=1), np.array([1, 0, 0]))


class TestFit:
    def test_small_photos_keep_their_values(self):
        pixels = colours(20, 30)
        np.testing.assert_array_equal(fit(pixels, longest=30)[0], pixels.astype(np.float32) / 255)
        np.testing.assert_array_equal(fit(pixels / 255.0, longest=99)[0], (pixels / 255).astype(np.float32))

    @pytest.mark.parametrize(
        ("shape", "expected"), [((40, 80), (20, 40)), ((80, 40), (40, 20)), ((1, 400), (1, 40))]
    )
    def test_large_ones_are_reduced_whole(self, shape, expected):
        """A horizontal ramp stays a ramp from end to end."""
        ramp = np.broadcast_to(np.linspace(0, 1, shape[1])[:, None], (*shape, 3))
        result = fit(ramp, longest=40)
        assert result.shape == (1, *expected, 3)
        np.testing.assert_allclose(result[0, 0, :, 0], np.linspace(0, 1, expected[1]), atol=0.05)

    def test_photos_that_are_none(self, tmp_path):
        (tmp_path / "x.png").write_text("hello")
        with pytest.raises(ValueError, match="is not an image"):
            fit(tmp_path / "x.png", longest=10)


def test_a_large_photo_is_cheap(tmp_path):
    """48 megapixels are no bomb, and resizing reads the box instead of copying it."""
    Image.new("RGB", (8000, 6000), (255, 0, 0)).save(tmp_path / "x.jpg", quality=50)
    start = time.perf_counter()
    close(square(tmp_path / "x.jpg"), np.array([1, 0, 0]), atol=0.02)
    assert time.perf_counter() - start < 20


def test_it_can_be_pickled_and_hashed():
    photo = colours()
    again = pickle.loads(pickle.dumps(square))
    np.testing.assert_array_equal(again(photo), square(photo))
    hash(square)


class TestErrors:
    def raises(self, photo, message, kind=ValueError):
        with pytest.raises(kind, match=message) as caught:
            square(photo)
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.raises(tmp_path / "x.png", "no such photo: .*x.png", FileNotFoundError)

    def test_not_an_image(self, tmp_path):
        (tmp_path / "x.png").write_text("hello")
        self.raises(tmp_path / "x.png", "x.png is not an image")
        (tmp_path / "y.png").write_bytes(b"")
        self.raises(tmp_path / "y.png", "y.png is not an image")
        self.raises(tmp_path, "is a folder, not an image")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
    def test_truncated(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(colours(64, 64)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.raises(path, f"x.{suffix} (cannot be read as an image|is not an image)")

    def test_a_decompression_bomb(self, tmp_path, monkeypatch):
        Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        self.raises(tmp_path / "x.png", "cannot be read as an image: .*decompression bomb")

    def test_no_pixels(self):
        self.raises(np.zeros((0, 5, 3)), r"no pixels: its shape is \(0, 5, 3\)")
        self.raises(Image.new("RGB", (0, 5)), "no pixels: its size is 0x5")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        photo = np.full((5, 5, 3), 0.5)
        photo[1, 2, 0] = bad
        self.raises(photo, "has 1 NaN or infinite values")
        self.raises(Image.fromarray(photo[..., 0].astype(np.float32)), "has 1 NaN or infinite values")

    @pytest.mark.parametrize("bad", [-0.1, 1.5, 255.0])
    def test_out_of_range(self, bad):
        photo = np.full((5, 5, 3), 0.5)
        photo[0, 0, 0] = bad
        self.raises(photo, r"must lie in \[0, 1\] where it is float; got")

    @pytest.mark.parametrize("shape", [(), (5,), (5, 5, 2), (3, 5, 5), (1, 5, 5, 3)])
    def test_shapes(self, shape):
        self.raises(np.zeros(shape), r"must be \[height, width, 3\]")

    @pytest.mark.parametrize("dtype", [np.int64, np.complex64])
    def test_types(self, dtype):
        self.raises(np.zeros((5, 5, 3), dtype), "must be uint8, uint16 or float")
        self.raises(3.5, "a photo must be a path, a file's bytes, a PIL image or an array .* got float")
        self.raises([], "at least one photo")

    @pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
    def test_sizes(self, size):
        for call in (lambda: crop(colours(), size=size), lambda: fit(colours(), longest=size)):
            with pytest.raises(ValueError, match="`(size|longest)` must be a positive integer; got"):
                call()

    def test_too_deep(self):
        self.raises(Image.fromarray(np.full((4, 4), 70000, np.int32)), "8 or 16 bits per pixel; got values")


def test_a_photo_is_padded_with_its_mean():
    pixels = colours(8, 32)
    found = np.asarray(square(pixels, fit="pad"))[0]
    inner = fit(pixels, longest=SIZE)[0]
    assert inner.shape == (4, SIZE, 3)
    np.testing.assert_array_equal(found[6:10], inner)
    np.testing.assert_allclose(found[:6], np.broadcast_to(inner.mean((0, 1)), (6, SIZE, 3)), atol=1e-6)
    np.testing.assert_allclose(found[10:], np.broadcast_to(inner.mean((0, 1)), (6, SIZE, 3)), atol=1e-6)
    assert placement(32, 8, size=SIZE, fit="pad") == ((0, 0, 32, 8), (0, 6, SIZE, 10))


def test_a_photo_is_squashed():
    down, across = np.mgrid[:64, :32].astype(np.float32)
    pixels = np.stack([down / 64, across / 32, 0 * down], -1)
    found = np.asarray(square(pixels, fit="squash"))[0]
    steps = (np.arange(SIZE) + 0.5) / SIZE
    # Away from the edges, where the kernel is cut off, means of a ramp lie on the ramp.
    middle = slice(2, -2)
    np.testing.assert_allclose(found[middle, 8, 0], steps[middle] - 0.5 / 64, atol=2e-3)
    np.testing.assert_allclose(found[8, middle, 1], steps[middle] - 0.5 / 32, atol=2e-3)
    assert placement(32, 64, size=SIZE, fit="squash") == ((0, 0, 32, 64), (0, 0, SIZE, SIZE))


def test_the_size_of_a_photo_is_that_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(colours(8, 32)).save(tmp_path / "turned.jpg", exif=exif)
    assert dimensions(tmp_path / "turned.jpg") == (8, 32)
    assert dimensions(colours(5, 7)) == (7, 5)
    with pytest.raises(ValueError, match="`fit` must be one of crop, pad, squash; got 'tile'"):
        square(colours(), fit="tile")
