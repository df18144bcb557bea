"""From JPEG files to probabilities, against torchvision's and Caffe's transforms written out.

tests/parity/test_photographs.py does the same with full models on photographs.
"""

from pathlib import Path

import numpy as np
import pytest
from cases import make_case
from PIL import Image
from transforms import caffe_input, torchvision_crop, torchvision_input
from whole_path import CAFFE, TORCHVISION, assert_same_answers, images_of, input_of, logits_of

from alexnet_jax.data.images import decode
from alexnet_jax.preprocessing.augment import center_crop

SIZES = ((301, 224), (224, 301), (500, 375), (333, 500), (256, 256), (259, 256), (100, 99))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """JPEGs with coarse and fine structure: portrait, landscape, larger and smaller than needed."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number, size in enumerate(SIZES):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
        noise = rng.integers(-60, 61, pixels.shape)
        image = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{number}.jpg")
        image.save(paths[-1], quality=95)
    return paths


NARROW = {f"conv{number}": {"features": 8 * number} for number in range(1, 6)} | {
    "fc6": {"features": 32},
    "fc7": {"features": 32},
}


def bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Interpolates between the four nearest pixels: float64[size, size, channels]."""

    def along_rows(pixels: np.ndarray) -> np.ndarray:
        position = (np.arange(size) + 0.5) * len(pixels) / size - 0.5
        position = position.clip(0, len(pixels) - 1)
        before = np.floor(position).astype(int)
        after = np.minimum(before + 1, len(pixels) - 1)
        share = (position - before)[:, None, None]
        return (1 - share) * pixels[before] + share * pixels[after]

    return along_rows(along_rows(image).transpose(1, 0, 2)).transpose(1, 0, 2)


def test_torchvision_s_pixels(files: list[Path]) -> None:
    found = center_crop(images_of(files, TORCHVISION), 224)
    np.testing.assert_array_equal(found, np.stack([torchvision_crop(file) for file in files]))


def test_caffe_s_pixels(files: list[Path]) -> None:
    """Within the rounding of a gray level; the parity tests compare with OpenCV exactly."""
    for image, file in zip(images_of(files, CAFFE), files, strict=True):
        expected = bilinear(decode(file.read_bytes(), 3).astype(float), 256)
        assert np.abs(image - expected).max() < 1
        assert abs((image - expected).mean()) < 0.2


def test_torchvision_s_answers(files: list[Path]) -> None:
    case = make_case("torchvision", 1, "float32", num_classes=50, layers=NARROW)
    inputs = input_of(images_of(files, TORCHVISION), TORCHVISION)
    expected = np.stack([torchvision_input(file) for file in files]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(inputs, expected, atol=1e-5)
    assert_same_answers(logits_of(case, inputs), logits_of(case, expected), different=3)


def test_caffe_s_answers(files: list[Path]) -> None:
    """A mean image with a gradient shows whether it is cropped where the image is."""
    case = make_case("caffe", 2, "float32", num_classes=50, layers=NARROW)
    images = images_of(files, CAFFE)
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    mean = np.stack([100 + rows / 10, 120 - columns / 9, 90 + (rows + columns) / 30], axis=-1)
    found = input_of(images, CAFFE, mean)
    stored, bgr = images.transpose(0, 3, 1, 2)[:, ::-1], mean.transpose(2, 0, 1)[::-1]
    expected = np.stack([caffe_input(image, bgr) for image in stored])[:, ::-1]
    expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert_same_answers(logits_of(case, found), logits_of(case, expected), different=3)
