"""Paths, Pillow's images and arrays of the same pixels are the same image."""

import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.image_inputs import split_images, to_pixels
from alexnet_jax.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GRAY = PIXELS[..., 0]


class Tensor:
    """What other frameworks pass: an object that numpy can read."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return PIXELS


def all_pixels(given: Any) -> list[np.ndarray]:
    return [to_pixels(image, 3) for image in split_images(given)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("10.png", "9.png", "gray.png"):
        Image.fromarray(GRAY if "gray" in name else PIXELS).save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    return tmp_path


def test_every_form_of_an_image_has_its_pixels(folder: Path) -> None:
    transparent = Image.fromarray(np.dstack([PIXELS, np.full_like(GRAY, 9)]))
    forms = [
        *(str(folder / "9.png"), folder / "9.png", Image.fromarray(PIXELS), PIXELS, PIXELS[None]),
        *(jnp.asarray(PIXELS), Tensor(), transparent, np.asarray(transparent)),
    ]
    for form in forms:
        (single,) = split_images(form)
        np.testing.assert_array_equal(to_pixels(single, 3), PIXELS)
    assert len(split_images(forms)) == len(forms)


@pytest.mark.parametrize("given", [GRAY, GRAY[..., None], Image.fromarray(GRAY)])
def test_gray_becomes_rgb_and_rgb_gray(given: Any) -> None:
    (single,) = split_images(given)
    np.testing.assert_array_equal(to_pixels(single, 1), GRAY[..., None])
    np.testing.assert_array_equal(to_pixels(single, 3), np.dstack([GRAY] * 3))
    luma = PIXELS @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    np.testing.assert_allclose(to_pixels(PIXELS, 1)[..., 0], luma, atol=1)


def test_many_images_of_any_form_in_their_order(folder: Path) -> None:
    batch = np.stack([PIXELS, PIXELS // 2])
    given = [batch, str(folder), (Image.fromarray(GRAY), f"{folder}/*y.png")]
    single = split_images(iter(given))
    assert [type(image).__name__ for image in single[:2]] == ["ndarray"] * 2
    assert [path.name for path in single[2:5]] == ["9.png", "10.png", "gray.png"]
    assert [np.size(to_pixels(image, 1)) for image in single] == [35] * 7
    np.testing.assert_array_equal(single[1], PIXELS // 2)
    assert split_images([]) == []


def test_images_of_pillow_are_turned_upright_and_not_changed() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif)
    with Image.open(file) as image:
        np.testing.assert_array_equal(to_pixels(image, 3), np.rot90(PIXELS, -1))
        assert image.size == (7, 5)
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    "given",
    [
        PIXELS.astype(np.float32) / 255,
        PIXELS.transpose(2, 0, 1),
        np.zeros((5, 7, 2), np.uint8),
        np.zeros((2, 2, 5, 7, 3), np.uint8),
        np.zeros((0, 7, 3), np.uint8),
        np.uint8(3),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused_with_their_type_and_shape(given: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\[" + ", ".join(map(str, given.shape)) + r"\]"):
        all_pixels(given)


@pytest.mark.parametrize("given", [None, 3, [[[0.5]]], b"bytes", [PIXELS, None]])
def test_other_objects_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"not (NoneType|int|float|bytes)\."):
        split_images(given)


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    whole = (folder / "9.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:60])
    for path in (folder / "cut.png", folder / "absent.png"):
        with pytest.raises(InputError, match=path.name):
            all_pixels(path)
    cut = Image.open(io.BytesIO(whole[:60]))
    with pytest.raises(InputError, match="PngImageFile"):
        to_pixels(cut, 3)
