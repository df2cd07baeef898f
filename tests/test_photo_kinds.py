"""Photos of every mode, orientation and format: what is stored is what is read."""

import functools
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL
import pytest
import tifffile
from photo_makers import (
    needs,
    opened,
    picture,
    png,
    png_block,
    quiet,
    values,
)
from PIL import Image

from jaxai.models import rasters
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
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("this Pillow writes YCbCr wrong: raw truncated, packed without EXIF")
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
        for call, whole_photo in zip(calls, expected, strict=True):
            tolerance = 1e-5 if mode in ("I;16", "F") else 1.01 / 255
            pieces = np.asarray(call(tmp_path / "x.tif", alpha=True))
            np.testing.assert_allclose(pieces, whole_photo, atol=tolerance)
            assert np.abs(pieces - whole_photo).mean() < 1e-4

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
