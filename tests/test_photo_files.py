"""Photo files that are odd, damaged, too large or no photos: the right pixels or one line."""

import io
import os
import struct
import threading
import time
import warnings

import numpy as np
import pytest
from photo_makers import (
    exif,
    needs,
    picture,
    png,
    png_block,
    quiet,
    refused,
    tiff,
    values,
    whole,
)
from PIL import Image, TiffImagePlugin

from jaxai.models import PhotoNote, photo_files


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
            exif(6).replace(b"II*", b"II+"),
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
                tmp_path / f"x.{suffix}",
                r"x\.\w+ (cannot be read as|is not) an image(: | that can be read \(PNG, )",
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
        refused(path, r"a\?\?\[31m\?\.png is not an image")


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
        refused(tmp_path / "x.jpg", r"x.jpg is not an image that can be read \(PNG, JPEG,")
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
