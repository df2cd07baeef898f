"""Photo files: what is stored is what is read, whatever the format; everything else is one line."""

import functools
import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from photo_makers import exif, png, png_block, tiff, twelve_bits
from PIL import Image, TiffImagePlugin

from jaxai.models import PhotoNote, photo_files, rasters
from jaxai.models.crop import crop, fit

# What undoes each EXIF orientation, in NumPy's words.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
DEEP = ("I;16", "I;16B", "I", "F")
whole = functools.partial(fit, longest=99)


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoNote)
        return np.asarray(whole(*arguments, **options))[0]


def opened(path, read=quiet, **options):
    """What is read of a Pillow image that was opened by name."""
    with Image.open(path) as image:
        return read(image, **options)


def notes(photo, **options):
    """What is said about a photo, and its pixels."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = np.asarray(whole(photo, **options))[0]
    assert all(warning.category is PhotoNote and "\n" not in str(warning.message) for warning in caught)
    return [str(warning.message) for warning in caught], pixels


opened_notes = functools.partial(opened, read=notes)


def refused(photo, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        whole(photo, **options)
    assert type(caught.value) is ValueError and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def needs(suffix):
    Image.init()
    if suffix == "avif" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")


def picture(mode):
    """A Pillow image of 12 rows and 20 columns without any symmetry."""
    rng = np.random.default_rng(len(mode))
    if mode in ("I;16", "I;16B"):
        values = rng.integers(0, 65536, (12, 20)).astype("<u2" if mode == "I;16" else ">u2")
        return (
            Image.fromarray(values) if mode == "I;16" else Image.frombytes(mode, (20, 12), values.tobytes())
        )
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, (12, 20)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.random((12, 20), np.float32))
    bands = rng.integers(0, 256, (12, 20, 4), dtype=np.uint8)
    if mode == "smooth":
        ramps = np.stack([*np.indices((12, 20)) * 9, np.indices((12, 20)).sum(0) * 8], -1)
        return Image.fromarray(ramps.astype(np.uint8))
    if mode in ("P", "PA"):
        image = Image.fromarray(bands[..., :3]).quantize(16)
        return image if mode == "P" else Image.merge("PA", [image.copy().convert("L"), image.convert("L")])
    number = len(Image.new(mode, (1, 1)).getbands())
    if mode == "1":
        return Image.fromarray(bands[..., 0] > 99)
    return Image.frombytes(mode, (20, 12), np.ascontiguousarray(bands[..., :number]).tobytes())


def values(image):
    """The pixels of an image in [0, 1], by Pillow's conversion of the whole."""
    if image.mode in DEEP:
        array = np.asarray(image).astype(np.float32)
        array = array if image.mode == "F" else array / np.float32(65535)
        return np.stack([array] * 3, -1)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255,) * 4), layers)
    return np.asarray(image.convert("RGB"), np.float32) / 255


FILES = {
    "png": ({}, ("1", "L", "LA", "P", "I;16", "RGB", "RGBA")),
    "tif": (
        {},
        ("1", "L", "LA", "P", "PA", "I;16", "I;16B", "I", "F", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    ),
    "lzw": (
        {"compression": "tiff_lzw"},
        ("1", "L", "LA", "P", "I;16", "I", "F", "RGB", "RGBA", "CMYK", "LAB"),
    ),
    "zip": ({"compression": "tiff_adobe_deflate"}, ("L", "I;16", "I;16B", "F", "RGB", "RGBA", "YCbCr")),
    "fax": ({"compression": "group4"}, ("1",)),
    "webp": ({"lossless": True, "exact": True}, ("RGB", "RGBA")),
    "jpg": ({"quality": 95}, ("L", "smooth", "CMYK")),
    "avif": ({"quality": 100}, ("smooth",)),
}
SUFFIX = {"lzw": "tif", "zip": "tif", "fax": "tif"}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind in FILES for mode in FILES[kind][1]])
def test_every_mode_and_orientation_is_read_upright(tmp_path, kind, mode):
    options = FILES[kind][0]
    image = picture(mode)
    path = tmp_path / f"x.{SUFFIX.get(kind, kind)}"
    needs(kind)
    image.save(path, **options)
    stored = quiet(path)
    # libtiff converts YCbCr by a table of its own.
    tolerance = 0.1 if kind in ("jpg", "avif") else 1.01 / 255 if (kind, mode) == ("zip", "YCbCr") else 0
    np.testing.assert_allclose(stored, values(image), rtol=0, atol=tolerance)
    for orientation, turn in TURNS.items():
        block = Image.Exif()
        block[0x0112] = orientation
        image.save(path, exif=block, **options)
        np.testing.assert_array_equal(quiet(path), turn(stored), err_msg=str(orientation))
        np.testing.assert_array_equal(opened(path), turn(stored), err_msg=f"{orientation}, opened")
        with open(path, "rb") as file:
            np.testing.assert_array_equal(quiet(Image.open(file)), turn(stored))


@pytest.mark.parametrize("kind", ["png", "jp2", "gif", "bmp", "ppm", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_formats_without_exif(tmp_path, kind, mode):
    image = picture(mode)
    if kind == "jp2":
        image = image.convert("L" if mode in "1L" else "RGB")
    elif kind == "ppm" and mode == "P":
        image = image.convert("RGB")
    elif kind == "gif" and mode == "RGB":
        image = image.quantize(200)
    path = tmp_path / f"x.{kind}"
    image.save(path)
    np.testing.assert_array_equal(quiet(path), values(image))


@pytest.mark.parametrize(
    "mode", ["La", "RGBa", "RGBX", "HSV", "YCbCr", "LAB", "CMYK", "PA", "I;16L", "I;16N"]
)
def test_images_of_rare_modes(mode):
    if mode.startswith("I;16"):
        deep = picture("I;16")
        image = Image.frombytes(mode, deep.size, deep.tobytes())
        np.testing.assert_array_equal(quiet(image), values(deep))
        return
    image = picture(mode)
    straight = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    np.testing.assert_array_equal(quiet(image), values(image.convert(straight) if straight else image))


def test_cielab_is_red_where_it_is_red(tmp_path):
    red = Image.frombytes("LAB", (2, 2), bytes([136, 80, 67]) * 4)
    red.save(tmp_path / "x.tif")
    np.testing.assert_allclose(quiet(tmp_path / "x.tif")[0, 0], [1, 0, 0], atol=0.05)


def test_turned_photos_are_resized_like_upright_ones(tmp_path):
    upright = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    Image.fromarray(upright).save(tmp_path / "a.png")
    block = Image.Exif()
    block[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "b.tif", exif=block)
    for call in (functools.partial(crop, size=16), functools.partial(fit, longest=33)):
        np.testing.assert_array_equal(call(tmp_path / "a.png"), call(tmp_path / "b.tif"))


class TestPieces:
    """A large photo goes through the resizing in pieces, which must not be seen."""

    @pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16", "F"])
    @pytest.mark.parametrize("orientation", [1, 3, 6, 7])
    def test_pieces_are_not_seen(self, tmp_path, monkeypatch, mode, orientation):
        rng = np.random.default_rng(0)
        shape = (331, 467)
        image = picture(mode).resize(shape[::-1], 0)
        if mode not in ("P", "F", "I;16"):
            bands = len(image.getbands())
            noise = rng.integers(0, 256, (*shape, bands), dtype=np.uint8)
            image = Image.frombytes(mode, shape[::-1], noise.tobytes())
        block = Image.Exif()
        block[0x0112] = orientation
        image.save(tmp_path / "x.tif", exif=block)
        calls = [functools.partial(crop, size=64)]
        calls += [functools.partial(fit, longest=longest) for longest in (61, 300, 999)]
        expected = [np.asarray(call(tmp_path / "x.tif", alpha=True)) for call in calls]
        monkeypatch.setattr(rasters, "_FLOATS", 9000)
        monkeypatch.setattr(rasters, "_BYTES", 9000)
        for call, values in zip(calls, expected, strict=True):
            tolerance = 1e-5 if mode in ("I;16", "F") else 1.01 / 255
            pieces = np.asarray(call(tmp_path / "x.tif", alpha=True))
            np.testing.assert_allclose(pieces, values, atol=tolerance)
            assert np.abs(pieces - values).mean() < 1e-4

    def test_files_and_arrays_agree(self, tmp_path):
        deep = np.random.default_rng(0).integers(0, 65536, (90, 70), dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / "x.png")
        np.testing.assert_array_equal(crop(tmp_path / "x.png", size=16), crop(deep, size=16))

    @pytest.mark.slow
    @pytest.mark.parametrize(("mode", "most"), [("I;16", 800), ("RGBA", 1300)])
    def test_the_largest_photo_fits(self, tmp_path, mode, most):
        """13,370 x 13,370 pixels of 16-bit grey took 4.7 GB, of RGBA 3.7 GB; they are 0.36 and 0.72 GB."""
        side = 13370
        depth, colour, size = (16, 0, 2) if mode == "I;16" else (8, 6, 4)
        import zlib

        packer = zlib.compressobj(1)
        line = b"\0" + b"\x60" * side * size
        data = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
        head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
        blocks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_block(*b) for b in blocks))
        code = (
            "import resource, sys, numpy as np; from jaxai.models.crop import crop;"
            "crop(np.zeros((9, 9, 3), np.uint8), size=9);"
            "use = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10; before = use();"
            "x = crop(sys.argv[1], size=224); print(use() - before, float(x[0, 9, 9, 0]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True, check=True
        )
        grown, value = done.stdout.split()
        assert done.stderr == ""
        expected = 0x60 / 255 if mode == "I;16" else (0x60 / 255) ** 2 + 1 - 0x60 / 255
        assert float(value) == pytest.approx(expected, abs=0.005)
        assert int(grown) < most


class TestMinIsWhite:
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_zero_is_white(self, tmp_path, dtype, compression):
        full = 1 if dtype == np.float32 else np.iinfo(dtype).max
        stored = np.linspace(0, full, 12 * 20).reshape(12, 20).astype(dtype)
        tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite", compression=compression)
        expected = 1 - stored.astype(np.float64) / full
        np.testing.assert_allclose(quiet(tmp_path / "x.tif")[..., 0], expected, atol=1e-6)
        np.testing.assert_allclose(opened(tmp_path / "x.tif")[..., 2], expected, atol=1e-6)

    def test_with_a_white_level_and_a_turn(self, tmp_path):
        stored = np.arange(240, dtype=np.uint16).reshape(12, 20)
        tifffile.imwrite(
            tmp_path / "x.tif", stored, photometric="miniswhite", extratags=[(274, 3, 1, 6, False)]
        )
        expected = np.rot90(1 - stored / 239, -1)
        np.testing.assert_allclose(quiet(tmp_path / "x.tif", white=239)[..., 0], expected, atol=1e-6)

    @pytest.mark.parametrize("compression", ["group4", "group3", "packbits"])
    def test_faxes(self, tmp_path, compression):
        bits = picture("1")
        bits.save(tmp_path / "x.tif", compression=compression, tiffinfo={262: 0})
        np.testing.assert_array_equal(quiet(tmp_path / "x.tif"), values(bits))


class TestWhite:
    def test_twelve_bits_in_sixteen(self, tmp_path):
        deep = np.random.default_rng(0).integers(0, 4096, (12, 20), dtype=np.uint16)
        deep[0, 0] = 4095
        for name in ("x.png", "x.tif"):
            Image.fromarray(deep).save(tmp_path / name)
            for photo, look in ((tmp_path / name, notes), (tmp_path / name, opened_notes), (deep, notes)):
                said, pixels = look(photo)
                assert len(said) == 1 and "4095 of 65535 (12 of 16 bits); white= " in said[0]
                np.testing.assert_allclose(pixels[..., 0], deep / 65535, atol=1e-7)
                said, pixels = look(photo, white=4095)
                assert not said
                np.testing.assert_allclose(pixels[..., 1], deep / 4095, atol=1e-6)
        said, _ = notes(tmp_path / "x.png")
        assert said[0].startswith(f"{tmp_path / 'x.png'}: ")

    def test_packed_twelve_bits_are_all_there_are(self, tmp_path):
        deep = np.random.default_rng(0).integers(0, 4096, (12, 20))
        (tmp_path / "x.tif").write_bytes(tiff(20, 12, twelve_bits(deep), bits=(12,)))
        said, pixels = notes(tmp_path / "x.tif")
        assert not said
        np.testing.assert_allclose(pixels[..., 0], deep / 4095, atol=1e-6)

    @pytest.mark.parametrize("mode", ["L", "RGB", "P"])
    def test_masks_of_zero_and_one(self, tmp_path, mode):
        mask = np.indices((12, 20)).sum(0) % 2
        image = Image.fromarray(mask.astype(np.uint8)).convert("RGB" if mode == "RGB" else "L")
        if mode == "P":
            image = image.convert("P")
        image.save(tmp_path / "x.png")
        if mode != "P":
            said, pixels = notes(tmp_path / "x.png")
            assert len(said) == 1 and "1 of 255 (1 of 8 bits)" in said[0] and pixels.max() < 0.004
        np.testing.assert_array_equal(quiet(tmp_path / "x.png", white=1)[..., 0], mask)

    def test_floats(self):
        said, _ = notes(np.full((4, 4, 3), 0.0624))
        assert len(said) == 1 and "0.0624 of 1; white=" in said[0]
        np.testing.assert_allclose(quiet(np.full((4, 4, 3), 300.0), white=400), 0.75)

    @pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint32, np.float64, jnp.bfloat16, np.uint8])
    def test_numbers_of_any_type(self, dtype):
        photo = np.array([[0, 50], [100, 25]]).astype(dtype)
        np.testing.assert_allclose(quiet(photo, white=100)[..., 0], [[0, 0.5], [1, 0.25]], atol=1e-6)

    def test_opacity_has_a_level_of_its_own(self):
        photo = np.array([[[50, 0, 100, 255], [100, 100, 100, 0]]], np.uint8)
        for image in (photo, Image.fromarray(photo)):
            pixels = quiet(image, white=100, alpha=True)
            np.testing.assert_allclose(pixels, [[[0.5, 0, 1], [1, 1, 1]]], atol=1e-6)

    def test_bilevel_images_know_their_white(self):
        np.testing.assert_array_equal(quiet(picture("1"), white=4095), values(picture("1")))
        np.testing.assert_array_equal(quiet(np.eye(3) > 0, white=7)[..., 0], np.eye(3))

    def test_values_above_it_are_refused(self, tmp_path):
        deep = np.full((4, 4), 5000, np.uint16)
        Image.fromarray(deep).save(tmp_path / "x.png")
        refused(tmp_path / "x.png", "x.png must lie in 0 to white=4095; got 5000 to 5000", white=4095)
        refused(deep, "photo must lie in 0 to white=4095; got 5000 to 5000", white=4095)
        refused(-np.ones((4, 4), np.int16), "must lie in 0 to white=9; got -1 to -1", white=9)
        refused(Image.new("RGB", (2, 2), "white"), "must lie in 0 to white=9; got 0 to 255", white=9)
        for white in (0, -1, float("nan"), float("inf")):
            refused(deep, "`white` must be a positive number", white=white)

    def test_sixteen_bit_colours_of_files(self, tmp_path):
        deep = np.full((2, 3, 3), 4000, ">u2")
        (tmp_path / "x.png").write_bytes(png(3, 2, 16, 2, deep.tobytes()))
        tifffile.imwrite(tmp_path / "x.tif", deep.astype("<u2"), photometric="rgb")
        for name in ("x.png", "x.tif"):
            said, _ = notes(tmp_path / name)
            assert len(said) == 1 and "an array of its 16 bits" in said[0]
            refused(tmp_path / name, "pass an array", white=4095)
        np.testing.assert_allclose(quiet(deep.astype(np.uint16), white=4000), 1)


class TestPages:
    def stack(self, path, **options):
        pages = np.zeros((3, 12, 20), np.uint8)
        pages[1], pages[2] = 100, np.arange(240).reshape(12, 20)
        if path.suffix == ".tif":
            tifffile.imwrite(path, pages, photometric="minisblack", **options)
        else:
            first, *others = (Image.fromarray(page).convert("RGB") for page in pages)
            first.save(path, save_all=True, append_images=others, lossless=True)
        return pages

    @pytest.mark.parametrize("name", ["x.tif", "x.gif", "x.png", "x.webp"])
    def test_a_page_is_chosen_or_noted(self, tmp_path, name):
        pages = self.stack(tmp_path / name)
        for look in (notes, opened_notes):
            said, pixels = look(tmp_path / name)
            assert len(said) == 1 and "page 1 of 3 is read; page= " in said[0] and (pixels == 0).all()
        for number, page in enumerate(pages, 1):
            for look in (notes, opened_notes):
                said, pixels = look(tmp_path / name, page=number)
                assert not said
                np.testing.assert_allclose(pixels[..., 0], page / 255, atol=2 / 255)

    @pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}])
    def test_of_every_tiff(self, tmp_path, options):
        pages = self.stack(tmp_path / "x.tif", **options)
        assert "page 1 of 3" in notes(tmp_path / "x.tif")[0][0]
        np.testing.assert_allclose(quiet(tmp_path / "x.tif", page=3)[..., 1], pages[2] / 255)

    @pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
    def test_thumbnails_and_masks_are_no_pages(self, tmp_path, options):
        with tifffile.TiffWriter(tmp_path / "x.tif", **options) as file:
            file.write(np.full((12, 20), 200, np.uint8))
            file.write(np.full((6, 10), 100, np.uint8), subfiletype=1)
            file.write(np.full((12, 20), 50, np.uint8))
            file.write(np.full((12, 20), 1, bool), subfiletype=4, photometric="mask")
        said, pixels = notes(tmp_path / "x.tif")
        assert "page 1 of 2" in said[0] and pixels[0, 0, 0] == np.float32(200 / 255)
        assert quiet(tmp_path / "x.tif", page=2)[0, 0, 0] == np.float32(50 / 255)

    def test_what_is_not_there(self, tmp_path):
        self.stack(tmp_path / "x.tif")
        Image.new("RGB", (3, 3)).save(tmp_path / "x.jpg")
        refused(tmp_path / "x.tif", r"x.tif .*: it has 3 pages; got page=4", page=4)
        refused(tmp_path / "x.jpg", r"x.jpg .*: it has 1 page; got page=2", page=2)
        refused(Image.new("RGB", (3, 3)), "it has 1 page; got page=2", page=2)
        refused(np.zeros((3, 3, 3)), "photo is an array, which has 1 page; got page=2", page=2)
        for page in (0, -1, 1.5):
            refused(tmp_path / "x.tif", "`page` must be a positive integer", page=page)

    def test_of_a_loop_of_pages(self, tmp_path):
        """The last page points back to the first."""
        data = bytearray(tiff(4, 3, bytes(range(99, 111))))
        (count,) = struct.unpack("<H", data[8:10])
        data[10 + 12 * count : 14 + 12 * count] = struct.pack("<I", 8)
        (tmp_path / "x.tif").write_bytes(data)
        assert not notes(tmp_path / "x.tif")[0]

    def test_a_pillow_image_stays_on_its_frame(self, tmp_path):
        pages = self.stack(tmp_path / "x.tif")
        with Image.open(tmp_path / "x.tif") as image:
            image.seek(2)
            said, pixels = notes(image)
        assert not said
        np.testing.assert_allclose(pixels[..., 0], pages[2] / 255)


class TestFourthChannel:
    near_infrared = np.random.default_rng(1).integers(30, 200, (12, 20, 4), dtype=np.uint8)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_an_array_has_opacity_and_says_so(self, dtype):
        photo = self.near_infrared.astype(dtype) if dtype == np.uint8 else self.near_infrared / dtype(255)
        photo = (photo * 65535).astype(dtype) if dtype == np.uint16 else photo
        said, pixels = notes(photo)
        assert len(said) == 1 and "fourth channel is taken as opacity; alpha=False " in said[0]
        colour, alpha = self.near_infrared[..., :3] / 255, self.near_infrared[..., 3:] / 255
        np.testing.assert_allclose(pixels, colour * alpha + 1 - alpha, atol=1e-4)
        said, pixels = notes(photo, alpha=False)
        assert not said
        np.testing.assert_allclose(pixels, colour, atol=1e-4)
        assert not notes(photo, alpha=True)[0]

    def test_opaque_arrays_need_no_note(self):
        photo = self.near_infrared.copy()
        photo[..., 3] = 255
        assert not notes(photo)[0]

    def test_what_a_tiff_declares(self, tmp_path):
        path, plain = tmp_path / "x.tif", self.near_infrared[..., :3] / np.float32(255)
        tifffile.imwrite(path, self.near_infrared, photometric="rgb", extrasamples=["unspecified"])
        said, pixels = notes(path)
        assert len(said) == 1 and "channels of unspecified meaning are left out" in said[0]
        np.testing.assert_allclose(pixels, plain)
        refused(path, "its extra channels are not opacity; got alpha=True", alpha=True)
        tifffile.imwrite(path, self.near_infrared, photometric="rgb", extrasamples=["unassalpha"])
        for data in (
            path.read_bytes(),
            tiff(20, 12, self.near_infrared.tobytes(), bits=(8,) * 4, photometric=2),
        ):
            path.write_bytes(data)
            said, pixels = notes(path)
            assert len(said) == 1 and "fourth channel is taken as opacity" in said[0]
            with Image.open(path) as image:
                np.testing.assert_array_equal(pixels, values(image))
            np.testing.assert_allclose(quiet(path, alpha=False), plain)

    @pytest.mark.parametrize("mode", ["LA", "RGBA", "La", "RGBa", "PA"])
    def test_opacity_is_left_out_on_demand(self, mode):
        image = picture(mode)
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGBA")
        expected = np.asarray(straight)[..., :3] / np.float32(255)
        np.testing.assert_allclose(quiet(image, alpha=False), expected)

    def test_wholly_transparent(self, tmp_path):
        Image.new("RGBA", (4, 4), (9, 99, 199, 0)).save(tmp_path / "x.png")
        said, pixels = notes(tmp_path / "x.png")
        assert len(said) == 1 and "wholly transparent" in said[0] and (pixels == 1).all()
        assert quiet(tmp_path / "x.png", alpha=False)[0, 0, 1] == np.float32(99 / 255)

    def test_opacity_out_of_range(self):
        photo = np.full((3, 3, 4), 0.5)
        photo[0, 0, 3] = 1.5
        refused(photo, r"the fourth channel of photo must be opacity from 0 to 1 .*; got 0.5 to 1.5")
        photo[0, 0, 3] = np.nan
        refused(photo, "the fourth channel of photo must be opacity")


class TestTransparentColours:
    """A PNG declares one colour transparent, in the depth of its samples."""

    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("clear", [0, 1])
    def test_grey(self, tmp_path, depth, clear):
        full = 2**depth - 1
        samples = np.array([0, 1, full, 1 if depth == 1 else full - 1])
        packed = {1: b"\x60", 2: b"\x1e", 4: b"\x01\xfe"}.get(depth)
        if depth == 8:
            packed = samples.astype(np.uint8).tobytes()
        elif depth == 16:
            packed = samples.astype(">u2").tobytes()
        if depth == 1:
            samples = np.array([0, 1, 1, 0])
        data = png(4, 1, depth, 0, packed, png_block(b"tRNS", struct.pack(">H", clear)))
        (tmp_path / "x.png").write_bytes(data)
        expected = np.where(samples == clear, 1, samples / full)
        np.testing.assert_allclose(quiet(tmp_path / "x.png")[0, :, 0], expected, atol=1e-6)
        np.testing.assert_allclose(quiet(tmp_path / "x.png", alpha=False)[0, :, 0], samples / full, atol=1e-6)

    @pytest.mark.parametrize("depth", [8, 16])
    def test_colours(self, tmp_path, depth):
        samples = np.array([[1, 2, 3], [200, 100, 50]]) * (257 if depth == 16 else 1)
        packed = samples.astype(">u2" if depth == 16 else np.uint8).tobytes()
        data = png(2, 1, depth, 2, packed, png_block(b"tRNS", struct.pack(">3H", *samples[0])))
        (tmp_path / "x.png").write_bytes(data)
        expected = [[1, 1, 1], [200 / 255, 100 / 255, 50 / 255]]
        np.testing.assert_allclose(quiet(tmp_path / "x.png")[0], expected, atol=1e-6)


class TestExif:
    odd = {
        "text as a number": (0x010F, 2, 4, b"abcd"),
        "no such type": (0x010F, 99, 1, b"\0\0\0\0"),
        "far away": (0x010E, 2, 4000, b"\xff\xff\xff\x7f"),
        "a fraction of nothing": (0x011A, 5, 1, b"\x1a\0\0\0"),
        "bytes for numbers": (0x0100, 7, 4, b"\xff\xfe\xfd\xfc"),
        "a block that is none": (0x8769, 4, 1, b"\xff\xff\xff\x7f"),
        "a block that is text": (0x8769, 2, 4, b"abc\0"),
        "a place that is text": (0x8825, 2, 4, b"abc\0"),
        "itself": (0x8769, 4, 1, b"\x08\0\0\0"),
    }

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
    @pytest.mark.parametrize("entry", odd.values(), ids=odd.keys())
    def test_what_is_odd_beside_the_orientation(self, tmp_path, suffix, entry):
        image = picture("RGB")
        options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
        image.save(tmp_path / f"x.{suffix}", **options)
        expected = np.rot90(quiet(tmp_path / f"x.{suffix}"), -1)
        image.save(tmp_path / f"x.{suffix}", exif=exif(6, entry), **options)
        np.testing.assert_array_equal(quiet(tmp_path / f"x.{suffix}"), expected)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
    @pytest.mark.parametrize(
        "block",
        [
            exif(0),
            exif(9),
            exif(6)[:9],
            exif(6)[:20],
            b"Exif\0\0",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            b"Exif\0\0garbage here",
            exif(6).replace(struct.pack("<HHI", 0x0112, 3, 1), struct.pack("<HHI", 0x0112, 5, 1)),
            exif(6).replace(struct.pack("<HHI", 0x0112, 3, 1), struct.pack("<HHI", 0x0112, 2, 4)),
        ],
    )
    def test_what_cannot_be_read_is_ignored(self, tmp_path, suffix, block):
        image = picture("RGB")
        options = {"lossless": True} if suffix == "webp" else {}
        image.save(tmp_path / f"x.{suffix}", **options)
        expected = quiet(tmp_path / f"x.{suffix}")
        image.save(tmp_path / f"x.{suffix}", exif=block, **options)
        np.testing.assert_array_equal(quiet(tmp_path / f"x.{suffix}"), expected)

    def test_in_a_tiff(self, tmp_path):
        """A damaged EXIF block inside, and an orientation that is a number of another type."""
        stored = np.arange(240, dtype=np.uint8).reshape(12, 20)
        data = tiff(20, 12, stored.tobytes(), tag274=(6,), tag34665=(65535,))
        (tmp_path / "x.tif").write_bytes(data)
        np.testing.assert_allclose(quiet(tmp_path / "x.tif")[..., 0], np.rot90(stored, -1) / 255)

    def test_xmp_counts_where_there_is_no_exif(self, tmp_path):
        image = picture("RGB")
        packet = b'<x:xmpmeta xmlns:tiff="t"><rdf tiff:Orientation="8"/></x:xmpmeta>'
        image.save(tmp_path / "x.webp", lossless=True, xmp=packet)
        np.testing.assert_array_equal(quiet(tmp_path / "x.webp"), np.rot90(values(image)))


class TestDamage:
    @pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P"])
    def test_every_flipped_bit_of_a_png_is_noticed(self, tmp_path, mode):
        """Pillow skips the checksums of the pixels."""
        ramp = np.linspace(0, 65535 if mode == "I;16" else 255, 480).reshape(12, 40)
        image = Image.fromarray(ramp.astype(np.uint16 if mode == "I;16" else np.uint8))
        image = image if mode == "I;16" else image.convert(mode)
        image.save(tmp_path / "x.png")
        good, data = quiet(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()
        wrong = 0
        for place in range(8, len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            (tmp_path / "y.png").write_bytes(damaged)
            try:
                np.testing.assert_array_equal(quiet(tmp_path / "y.png"), good)
            except ValueError as error:
                assert "y.png cannot be read as an image: it is " in str(error)
                wrong += 1
        assert wrong == len(data) - 8

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm", "jp2", "avif"])
    def test_truncated(self, tmp_path, suffix):
        needs(suffix)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
            tmp_path / f"x.{suffix}"
        )
        data = (tmp_path / f"x.{suffix}").read_bytes()
        for part in (0, 1, 9, 20, len(data) // 2):
            (tmp_path / f"x.{suffix}").write_bytes(data[:part])
            refused(
                tmp_path / f"x.{suffix}", r"x\.\w+ (cannot be read as an image: |is not an image \(PNG, )"
            )

    def test_libtiff_and_pillow_keep_quiet(self, tmp_path, capfd):
        picture("L").resize((64, 64)).save(tmp_path / "x.tif", compression="tiff_lzw")
        data = (tmp_path / "x.tif").read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(3):
                damaged[rng.integers(8, len(data))] = rng.integers(256)
            (tmp_path / "y.tif").write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PhotoNote)
                try:
                    whole(tmp_path / "y.tif")
                except ValueError:
                    pass
        assert capfd.readouterr() == ("", "")

    def test_names_are_shown_in_one_harmless_line(self, tmp_path):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/a\n\x1b[31m\xe9.png")
        with open(path, "wb") as file:
            file.write(b"hello")
        refused(path, r"a\\n\\x1b\[31m\\udce9\.png is not an image")


class TestOnlyPhotos:
    @pytest.fixture
    def programs(self, tmp_path, monkeypatch):
        """A folder first in PATH whose programs leave a trace."""
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("gs", "gswin64c", "djpeg", "convert", "xdg-open"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield
        assert not (tmp_path / "started").exists()

    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n"

    @pytest.mark.parametrize(
        "data",
        [
            postscript,
            b"\xc5\xd0\xd3\xc6"
            + struct.pack("<IIIIII", 32, len(postscript), 0, 0, 0, 0)
            + b"\0\0"
            + postscript,
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
            struct.pack("<IHhhhhHHHHHII", 0x9AC6CDD7, 0, 0, 0, 20, 12, 72, 0, 0, 1, 9, 0, 0) + bytes(99),
            b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60),
            b"GRIB" + bytes(60),
            b"BUFR" + bytes(60),
            b"\x89HDF\r\n\x1a\n" + bytes(60),
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        ],
    )
    def test_no_program_is_started(self, tmp_path, programs, data):
        (tmp_path / "x.jpg").write_bytes(data)
        refused(tmp_path / "x.jpg", r"x.jpg is not an image \(PNG, JPEG,")
        try:
            image = Image.open(tmp_path / "x.jpg")
        except Exception:
            return
        with image:
            refused(image, "photo cannot be read as an image: a program would draw this")

    def test_the_format_is_that_of_the_contents(self, tmp_path):
        picture("RGB").save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / "x.jpg")
        np.testing.assert_array_equal(quiet(tmp_path / "x.jpg"), values(picture("RGB")))

    @pytest.mark.parametrize("suffix", photo_files.EXTENSIONS)
    def test_extensions_are_those_of_formats(self, tmp_path, suffix):
        needs(suffix[1:])
        picture("RGB").save(tmp_path / f"x{suffix}")
        assert quiet(tmp_path / f"x{suffix}").shape == (12, 20, 3)

    def test_pipes_and_devices_are_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "x.jpg")
        (tmp_path / "zero.png").symlink_to("/dev/zero")
        start = time.perf_counter()
        for name in ("x.jpg", "zero.png"):
            refused(tmp_path / name, f"{name} cannot be read as an image: it is not a regular file")
        assert time.perf_counter() - start < 5
        refused(tmp_path, "is a folder, not an image")
        refused("a\0b.png", "cannot be read as an image: .*null")
        with pytest.raises(FileNotFoundError, match="no such photo"):
            whole(tmp_path / "none.png")


class TestBombs:
    def declared(self, suffix, side):
        """A small file that declares `side` x `side` pixels."""
        small = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
        Image.new("L" if suffix in ("gif", "jp2") else "RGB", (3, 3)).save(small, kind)
        data = bytearray(small.getvalue())
        if suffix == "png":
            return (
                png(side, side, 8, 2, bytes(9 * 3))[:8]
                + png_block(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
                + bytes(data[33:])
            )
        if suffix == "jpg":
            place = data.index(b"\xff\xc0")
            data[place + 5 : place + 9] = struct.pack(">HH", side, side)
        elif suffix == "gif":
            data[6:10] = struct.pack("<HH", side, side)
        elif suffix == "bmp":
            data[18:26] = struct.pack("<ii", side, side)
        elif suffix == "ppm":
            return b"P6\n%d %d\n255\n" % (side, side) + bytes(27)
        elif suffix == "tif":
            return tiff(3, 3, bytes(27), bits=(8, 8, 8), photometric=2, tag256=(side,), tag257=(side,))
        elif suffix == "jp2":
            place = data.index(b"ihdr")
            data[place + 4 : place + 12] = struct.pack(">II", side, side)
            place = data.index(b"\xff\x4f\xff\x51")
            data[place + 8 : place + 16] = struct.pack(">II", side, side)
            data[place + 24 : place + 32] = struct.pack(">II", side, side)
        return bytes(data)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "ppm", "tif", "jp2"])
    def test_declared_sizes(self, tmp_path, suffix):
        (tmp_path / f"x.{suffix}").write_bytes(self.declared(suffix, 50000))
        start = time.perf_counter()
        refused(
            tmp_path / f"x.{suffix}",
            r"cannot be read as an image: it declares (50000x50000|\d+) pixels.* max_pixels= or the"
            " environment's JAXAI_MAX_PIXELS allows it",
        )
        assert time.perf_counter() - start < 2

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "ppm", "tif", "jp2", "webp"])
    def test_the_limit_can_be_moved(self, tmp_path, suffix, monkeypatch):
        path = tmp_path / f"x.{suffix}"
        Image.new("RGB", (40, 30), (200, 100, 50)).save(path)
        refused(path, "declares 40x30 pixels, more than 1199", max_pixels=1199)
        assert quiet(path, max_pixels=1200).shape == (30, 40, 3)
        monkeypatch.setenv("JAXAI_MAX_PIXELS", "1199")
        refused(path, "declares 40x30 pixels, more than 1199")
        with Image.open(path) as image:
            refused(image, "declares 40x30 pixels, more than 1199")
        assert quiet(path, max_pixels=1200).shape == (30, 40, 3)
        monkeypatch.setenv("JAXAI_MAX_PIXELS", "1200")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert quiet(path).shape == (30, 40, 3)
        assert Image.MAX_IMAGE_PIXELS == 10
        for text in ("many", "0", "-3", "1.5"):
            monkeypatch.setenv("JAXAI_MAX_PIXELS", text)
            refused(path, "JAXAI_MAX_PIXELS must be a positive integer; got")
        monkeypatch.delenv("JAXAI_MAX_PIXELS")
        refused(path, r"declares (40x30|1200) pixels")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert quiet(path).shape == (30, 40, 3)

    def test_options_are_checked(self):
        for value in (0, -1, 2.5, "many"):
            refused(np.zeros((3, 3, 3)), "`max_pixels` must be a positive integer", max_pixels=value)


def test_notes_name_the_photo_of_a_list(tmp_path):
    Image.fromarray(np.full((4, 4), 9, np.uint16)).save(tmp_path / "x.png")
    with pytest.warns(PhotoNote) as caught:
        crop([np.zeros((4, 4, 3)), tmp_path / "x.png", np.full((4, 4), 9, np.uint16)], size=4)
    assert [str(w.message).split(":")[0] for w in caught] == [str(tmp_path / "x.png"), "photo 2 of the list"]
    with pytest.raises(ValueError, match="photo 1 of the list must be"):
        crop([np.zeros((4, 4, 3)), np.zeros((4, 4, 2))], size=4)
    assert caught[0].filename == __file__


def test_threads_read_at_once_and_leave_no_trace(tmp_path):
    photos = []
    for i, mode in enumerate(("L", "RGB", "I;16", "P", "RGBA")):
        path = tmp_path / f"{i}.tif"
        picture(mode).save(path, compression="tiff_lzw")
        photos.append((path, quiet(path, alpha=True)))
    filters, limit, wrong = list(warnings.filters), Image.MAX_IMAGE_PIXELS, []

    def read(path, expected):
        for _ in range(20):
            if not np.array_equal(whole(path, alpha=True, max_pixels=10**9)[0], expected):
                wrong.append(path)

    threads = [threading.Thread(target=read, args=photo) for photo in photos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and warnings.filters == filters and Image.MAX_IMAGE_PIXELS == limit


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_users_image_stays_as_it_was(tmp_path, suffix):
    block = Image.Exif()
    block[0x0112] = 6
    picture("RGB").save(tmp_path / f"x.{suffix}", exif=block)
    with Image.open(tmp_path / f"x.{suffix}") as ours, open(tmp_path / f"x.{suffix}", "rb") as file:
        np.testing.assert_array_equal(quiet(ours), quiet(ours))
        other = Image.open(file)
        other.load()
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(other))
        assert ours.filename == str(tmp_path / f"x.{suffix}") and ours.getexif() == other.getexif()


def test_pillow_turns_nothing_itself():
    """`open_file` takes this method's place, so that Pillow must have it."""
    assert callable(TiffImagePlugin.TiffImageFile.load_end)
