import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.data.images import (
    RESIZERS,
    UnreadableImage,
    decode,
    resize_and_crop,
    resize_short_side,
    stretch,
    warp,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), np.uint8)
LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "PPM": {},
}
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(color: tuple[int, ...], mode: str, **options) -> bytes:
    return encoded(Image.new(mode, (24, 16), color), "JPEG", quality=95, **options)


def without_segment(data: bytes, marker: int) -> bytes:
    """Cuts the first segment of one marker out of a JPEG file."""
    start = data.index(bytes([0xFF, marker]))
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:start] + data[start + 2 + length :]


class TestDecode:
    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_lossless_formats_come_back_exactly(self, kind):
        pixels = decode(encoded(Image.fromarray(PIXELS), kind, **LOSSLESS[kind]), 3)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, PIXELS)

    def test_jpeg_comes_back_closely(self):
        pixels = decode(jpeg((200, 30, 90), "RGB"), 3)
        assert pixels.shape == (16, 24, 3)
        assert np.abs(pixels.astype(int) - (200, 30, 90)).max() <= 3

    def test_animation_gives_its_first_frame(self):
        frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime", "blue")]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert (decode(data, 3) == (255, 0, 0)).all()

    def test_gray_jpeg_becomes_three_equal_channels(self):
        pixels = decode(jpeg((77,), "L"), 3)
        assert pixels.shape == (16, 24, 3)
        assert (pixels == 77).all()

    def test_color_becomes_luma(self):
        pixels = decode(encoded(Image.fromarray(PIXELS), "PNG"), 1)
        luma = PIXELS @ np.array([0.299, 0.587, 0.114])
        assert pixels.shape == (5, 7, 1)
        assert np.abs(pixels[..., 0] - luma).max() <= 0.51

    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda stored: stored),
            (2, lambda stored: stored[:, ::-1]),
            (3, lambda stored: stored[::-1, ::-1]),
            (4, lambda stored: stored[::-1]),
            (5, lambda stored: stored.transpose(1, 0, 2)),
            (6, lambda stored: np.rot90(stored, -1)),
            (7, lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
            (8, lambda stored: np.rot90(stored, 1)),
        ],
    )
    def test_exif_orientation_is_undone(self, orientation, upright):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
        np.testing.assert_array_equal(decode(data, 3), upright(PIXELS))

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("form", ['="6"/>', ">6</tiff:Orientation>"])
    def test_xmp_orientation_is_undone(self, channels, form):
        xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation{form}</x:xmpmeta>'.encode()
        image = Image.new("RGB", (24, 16))
        image.paste((255, 255, 255), (0, 0, 24, 8))  # the upper half, which belongs to the right
        pixels = decode(encoded(image, "JPEG", quality=95, xmp=xmp), channels)
        assert pixels.shape == (24, 16, channels)
        assert (pixels[:, 9:] > 250).all()
        assert (pixels[:, :7] < 5).all()

    @pytest.mark.filterwarnings("ignore:::PIL")  # as the module itself does outside pytest
    def test_broken_exif_does_not_affect_the_pixels(self):
        directory = b"II*\0\x08\0\0\0" + b"\x09\0" + b"\x0f\x01\x02\0\xff\0\0\0\xf0\0\0\0"
        pixels = decode(jpeg((77,), "L", exif=b"Exif\0\0" + directory), 1)
        assert (pixels == 77).all()

    def test_palette_with_transparency_keeps_its_colors(self):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata([0, 1])
        data = encoded(image, "PNG", transparency=bytes([0, 128]))
        np.testing.assert_array_equal(decode(data, 3), [[[10, 20, 30], [200, 100, 50]]])

    @pytest.mark.parametrize(
        ("mode", "color", "expected"),
        [("RGBA", (10, 20, 30, 0), [10, 20, 30]), ("LA", (40, 0), [40, 40, 40])],
    )
    def test_alpha_is_dropped_not_composited(self, mode, color, expected):
        data = encoded(Image.new(mode, (3, 2), color), "PNG")
        assert (decode(data, 3) == expected).all()

    def test_cmyk_jpeg_is_stored_inverted_as_adobe_does(self):
        data = jpeg((0, 255, 255, 0), "CMYK")  # full magenta and yellow: red
        assert b"Adobe" in data
        for file in (data, without_segment(data, 0xEE)):
            assert np.abs(decode(file, 3).astype(int) - (255, 0, 0)).max() <= 4

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_16_bit_gray_is_scaled_not_clipped(self, kind):
        levels = np.array([[0, 128, 129, 257, 32767, 40000, 65535]], np.uint16)
        expected = [round(level / 257) for level in levels[0].tolist()]
        for channels in (1, 3):
            pixels = decode(encoded(Image.fromarray(levels), kind), channels)
            np.testing.assert_array_equal(
                pixels, np.array(expected)[None, :, None] + [0] * channels
            )

    def test_16_bit_values_of_a_small_range_are_reported_once(self, caplog):
        images._warn_of_dark_images.cache_clear()
        for largest, count in ((4096, 0), (4095, 1), (255, 1)):
            levels = np.array([[0, largest]], np.uint16)
            decode(encoded(Image.fromarray(levels), "PNG"), 1)
            assert len(caplog.messages) == count

    def test_1_bit_is_black_and_white(self):
        image = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
        np.testing.assert_array_equal(decode(encoded(image, "PNG"), 1)[0, :, 0], [0, 255, 0])

    def test_result_may_be_written_to(self):
        assert decode(encoded(Image.fromarray(PIXELS), "PNG"), 3).flags.writeable


class TestUnreadable:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty"),
            (b"<html>404 not found</html>", "known format"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
            (jpeg((1, 2, 3), "RGB")[:-60], "truncated"),
            (encoded(Image.fromarray(PIXELS), "PNG")[:-40], "truncated"),
            (jpeg((1, 2, 3), "RGB")[:20], "."),
            (encoded(Image.new("F", (3, 2), 0.5), "TIFF"), "floating-point"),
        ],
    )
    def test_reason_is_given(self, data, reason):
        with pytest.raises(UnreadableImage, match=f"(?i){reason}") as caught:
            decode(data, 3)
        assert " at 0x" not in str(caught.value)

    @pytest.mark.parametrize("side", [35, 80])  # Pillow warns above its limit, raises above twice
    def test_decompression_bomb(self, side, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        data = encoded(Image.new("L", (side, side)), "PNG")
        with pytest.raises(UnreadableImage, match="limit"):
            decode(data, 1)

    @settings(max_examples=150, deadline=None)
    @given(
        kind=st.sampled_from(["JPEG", *LOSSLESS]),
        cut=st.integers(1, 400),
        damage=st.dictionaries(st.integers(0, 300), st.integers(0, 255), max_size=4),
        channels=st.sampled_from([1, 3]),
    )
    def test_damaged_files_raise_nothing_else(self, kind, cut, damage, channels):
        data = bytearray(encoded(Image.fromarray(PIXELS), kind)[:cut])
        for offset, value in damage.items():
            data[offset % len(data)] = value
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
            try:
                pixels = decode(bytes(data), channels)
            except UnreadableImage as error:
                assert str(error)  # noqa: PT017 (either way is fine)
            else:
                assert pixels.dtype == np.uint8
                assert pixels.shape[2] == channels

    def test_no_warning_escapes(self, tmp_path):
        """In its own process, since pytest overrides the filter that the module sets."""
        entries = bytes.fromhex("1201 0300 01000000 06000000  0f01 0200 ff000000 f0000000")
        exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + entries  # orientation 6, then damage
        path = tmp_path / "image.jpg"
        Image.new("L", (6, 4)).save(path, exif=exif)
        script = """
import pathlib, sys
from PIL import Image
from alexnet_jax.data.images import UnreadableImage, decode
data = pathlib.Path(sys.argv[1]).read_bytes()
print(decode(data, 1).shape)
Image.MAX_IMAGE_PIXELS = 20
try:
    decode(data, 1)
except UnreadableImage as error:
    print(error)
"""
        command = [sys.executable, "-W", "error::UserWarning", "-W", "error::RuntimeWarning"]
        done = subprocess.run([*command, "-c", script, path], capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "(6, 4, 1)",
            "6 x 4 pixels are above the limit of 20 pixels",
        ]


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 9 + shift) * np.cos(columns / 11 - shift) for shift in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


class TestResizeAndCrop:
    @given(
        height=st.integers(1, 60),
        width=st.integers(1, 60),
        size=st.integers(1, 40),
        channels=st.sampled_from([1, 3]),
        level=st.integers(0, 255),
    )
    @settings(deadline=None)
    def test_uniform_image_stays_uniform(self, height, width, size, channels, level):
        result = resize_and_crop(np.full((height, width, channels), level, np.uint8), size)
        assert result.shape == (size, size, channels)
        assert result.dtype == np.uint8
        assert (result == level).all()

    def test_square_of_the_size_is_unchanged(self):
        image = smooth(32, 32)
        assert resize_and_crop(image, 32) is image

    def test_a_shorter_side_of_the_size_is_only_cropped(self):
        image = smooth(20, 27)
        np.testing.assert_array_equal(resize_and_crop(image, 20), image[:, 3:23])
        tall = image.transpose(1, 0, 2)
        np.testing.assert_array_equal(resize_and_crop(tall, 20), tall[3:23])

    @pytest.mark.parametrize("size", [16, 100])
    def test_only_the_central_square_matters(self, size):
        image = np.full((40, 90, 3), 255, np.uint8)
        image[:, 25:65] = 7
        assert (resize_and_crop(image, size) == 7).all()

    def test_enlarging_follows_a_ramp(self):
        """Cubic interpolation reproduces a straight line; the nearest pixel would make steps."""
        ramp = np.broadcast_to(np.arange(0, 192, 6, dtype=np.uint8), (32, 32))[..., None]
        positions = (np.arange(128) + 0.5) / 4 - 0.5
        inside = slice(8, -8)  # away from the border, where the line ends
        for image in (ramp, ramp.transpose(1, 0, 2)):
            result = resize_and_crop(image, 128)[..., 0]
            line = result[64] if image is ramp else result[:, 64]
            assert np.abs(line - 6 * positions)[inside].max() <= 1

    def test_shrinking_averages(self):
        """A pattern finer than the new pixels turns gray; sampled, it would stay black or white."""
        checks = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
        assert np.abs(resize_and_crop(checks, 32).astype(int) - 127.5).max() <= 3

    def test_shrinking_is_close_to_the_area_average(self):
        image = smooth(96, 144)
        blocks = image[:, 24:120].astype(float).reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
        assert np.abs(resize_and_crop(image, 24) - blocks).max() <= 2

    def test_gray_is_treated_as_a_color_channel(self):
        image = smooth(50, 40)
        for size in (24, 64):
            np.testing.assert_array_equal(
                resize_and_crop(image[..., :1], size), resize_and_crop(image, size)[..., :1]
            )

    def test_extremely_long_image_needs_little_memory(self):
        image = np.zeros((1, 5_000_000, 1), np.uint8)
        assert resize_and_crop(image, 256).shape == (256, 256, 1)


class TestPlainJpeg:
    """The fast decoder gives the same pixels as Pillow."""

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    @pytest.mark.parametrize(
        "options", [{"quality": 92}, {"subsampling": 0}, {"progressive": True}]
    )
    def test_same_pixels_as_pillow(self, mode, options):
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).convert(mode)
        file = io.BytesIO()
        coarse.resize((131, 97), Image.Resampling.BICUBIC).save(file, "JPEG", **options)
        with Image.open(file) as image:
            slow = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode(file.getvalue(), 3), slow)


class TestOtherShapes:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_warp_keeps_every_part_of_the_image(self, channels):
        # Four quarters of one level each stay quarters, whatever the ratio was.
        image = np.repeat(np.repeat([[0, 80], [160, 240]], 30, axis=0), 55, axis=1)
        image = np.repeat(image.astype(np.uint8)[..., None], channels, axis=-1)
        for size in (20, 80):
            warped = warp(image, size)
            assert warped.shape == (size, size, channels)
            quarter = size // 4
            middles = warped[quarter :: 2 * quarter, quarter :: 2 * quarter, 0]
            np.testing.assert_array_equal(middles, [[0, 80], [160, 240]])

    @given(
        height=st.integers(1, 300),
        width=st.integers(1, 300),
        size=st.integers(1, 60),
        channels=st.sampled_from([1, 3]),
        level=st.integers(0, 255),
        resize=st.sampled_from(sorted(RESIZERS)),
    )
    @settings(deadline=None)
    def test_uniform_images_become_uniform_squares(
        self, height, width, size, channels, level, resize
    ):
        image = np.full((height, width, channels), level, np.uint8)
        result = RESIZERS[resize](image, size)
        assert result.shape == (size, size, channels)
        assert (result == level).all()

    @pytest.mark.parametrize("resize", RESIZERS)
    def test_a_square_of_the_size_stays(self, resize):
        np.testing.assert_array_equal(RESIZERS[resize](smooth(32, 32), 32), smooth(32, 32))

    @pytest.mark.parametrize("shape", [(1, 3_000_000, 1), (3_000_000, 1, 1)])
    def test_very_long_images(self, shape):
        """They need little memory, or are refused."""
        image = np.zeros(shape, np.uint8)
        assert warp(image, 256).shape == (256, 256, 1)
        with pytest.raises(UnreadableImage, match="limit"):
            RESIZERS["torchvision"](image, 256)

    def test_torchvision_rounds_half_to_even(self):
        """Of 8 x 13 and 8 x 11 pixels it drops 2, the even one of 2 and 3 and of 1 and 2."""
        columns = np.tile(np.arange(13, dtype=np.uint8)[:, None], (8, 1, 1))
        for width, left in ((13, 2), (11, 2), (9, 0)):
            result = RESIZERS["torchvision"](columns[:, :width], 8)
            np.testing.assert_array_equal(result, columns[:, left : left + 8])

    def test_warp_takes_four_pixels(self):
        """Between the pixels it is linear, and what lies between the four chosen has no effect."""
        image = np.zeros((80, 80, 1), np.uint8)
        image[::20] = 200  # the nearest to the new pixels 4 i + 1.5 are 4 i + 1 and 4 i + 2
        assert (warp(image, 20) == 0).all()
        image[::20], image[1::20] = 0, 200
        assert (warp(image, 20)[::5] == 100).all()

    @pytest.mark.parametrize(("size", "before"), [(20, (33, 47)), (40, (31, 20))])
    def test_stretch_is_the_mean_under_a_triangle(self, size, before):
        """As Pillow's bilinear filter, whose support grows with the scale when it shrinks."""
        image = np.random.default_rng(0).integers(0, 256, (*before, 1), np.uint8)
        expected = image[..., 0].astype(float)
        for axis, length in enumerate(before):
            scale = max(length / size, 1)
            centers = (np.arange(size) + 0.5) * length / size
            distances = np.abs(np.arange(length) + 0.5 - centers[:, None]) / scale
            weights = np.maximum(1 - distances, 0)
            weights /= weights.sum(axis=1, keepdims=True)
            expected = np.moveaxis(np.tensordot(weights, expected, (1, axis)), 0, axis)
        assert np.abs(stretch(image, size)[..., 0] - expected).max() <= 1.5

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ((300, 400), (60, 80)),
            ((375, 500), (60, 80)),
            ((40, 30), (80, 60)),
            ((60, 60), (60, 60)),
        ],
    )
    def test_short_side(self, before, after):
        ramp = np.linspace(0, 200, before[1]).astype(np.uint8)
        image = np.tile(ramp[None, :, None], (before[0], 1, 3))
        scaled = resize_short_side(image, 60)
        assert scaled.shape == (*after, 3)
        wanted = np.linspace(0, 200, after[1])
        assert np.abs(scaled[:, :, 0] - wanted).max() < 4

    def test_a_side_beyond_jpegs_limit(self):
        with pytest.raises(UnreadableImage, match="76800"):
            resize_short_side(np.zeros((1, 300, 3), np.uint8), 256)
