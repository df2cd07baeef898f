"""What a photo may mean: its white, its page, its fourth channel; a note where that is open."""

import struct

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from photo_makers import notes, opened_notes, picture, png, quiet, refused, tiff, twelve_bits, values
from PIL import Image

from jaxai.models import PhotoNote
from jaxai.models.crop import crop


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
        for white in (0, -1, float("nan"), float("inf"), "4095", [1]):
            refused(deep, "`white` must be a positive number", white=white)
        for alpha in ("yes", 1, 0):
            refused(deep, "`alpha` must be True, False or None", alpha=alpha)

    def test_numbers_with_a_sign(self, tmp_path):
        path = tmp_path / "x.tif"
        stored = np.linspace(0, 100, 12).reshape(3, 4)
        tifffile.imwrite(path, stored.astype(np.int8), photometric="minisblack")
        refused(path, "x.tif cannot be read as an image: its numbers of 8 bits have a sign")
        with Image.open(path) as image:
            refused(image, "photo cannot be read as an image: its numbers of 8 bits have a sign")
        deep = (stored * 327.67).astype(np.int16)
        tifffile.imwrite(path, deep, photometric="minisblack")
        np.testing.assert_allclose(quiet(path)[..., 0], deep / 32767, atol=1e-6)
        deep[0, 0] = -1
        tifffile.imwrite(path, deep, photometric="minisblack")
        refused(path, "8 or 16 bits per pixel; got values from -1 to 32767$")

    def test_integers_of_32_bits(self, tmp_path):
        path = tmp_path / "x.tif"
        stored = np.arange(12, dtype=np.uint32).reshape(3, 4) * 5000
        tifffile.imwrite(path, stored, photometric="minisblack")
        said, pixels = notes(path)
        assert len(said) == 1 and "65535 is taken as white in its 32-bit integers" in said[0]
        np.testing.assert_allclose(pixels[..., 0], stored / 65535, atol=1e-6)
        said, pixels = notes(path, white=55000)
        assert not said
        np.testing.assert_allclose(pixels[..., 0], stored / 55000, atol=1e-6)
        tifffile.imwrite(path, stored * 5, photometric="minisblack")
        refused(path, "8 or 16 bits per pixel; got values from 0 to 275000 .white= sets another white")

    def test_sixteen_bit_colours_of_files(self, tmp_path):
        deep = np.full((2, 3, 3), 4000, ">u2")
        (tmp_path / "x.png").write_bytes(png(3, 2, 16, 2, deep.tobytes()))
        tifffile.imwrite(tmp_path / "x.tif", deep.astype("<u2"), photometric="rgb")
        for name in ("x.png", "x.tif"):
            said, _ = notes(tmp_path / name)
            assert len(said) == 1 and "pass an array of its 16 bits to set white=" in said[0]
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


@pytest.mark.unchecked
def test_notes_name_the_photo_of_a_list(tmp_path):
    Image.fromarray(np.full((4, 4), 9, np.uint16)).save(tmp_path / "x.png")
    with pytest.warns(PhotoNote) as caught:
        crop([np.zeros((4, 4, 3)), tmp_path / "x.png", np.full((4, 4), 9, np.uint16)], size=4)
    assert [str(w.message).split(":")[0] for w in caught] == [str(tmp_path / "x.png"), "photo 2 of the list"]
    with pytest.raises(ValueError, match="photo 1 of the list must be"):
        crop([np.zeros((4, 4, 3)), np.zeros((4, 4, 2))], size=4)
    assert caught[0].filename == __file__
