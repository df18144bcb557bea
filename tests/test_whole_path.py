"""From weight files and JPEG files to probabilities, against other programs' path by numpy.

tests/parity/test_photographs.py does the same with full models on photographs.
"""

from pathlib import Path
from typing import Any

import caffe_numpy
import narrow_models
import numpy as np
import pytest
import torch_archive
from answers import assert_same_answers, spread
from PIL import Image
from transforms import caffe_input, torchvision_crop, torchvision_input

import alexnet_jax
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


def test_torchvision_s_path(files: list[Path], tmp_path: Path) -> None:
    arrays = narrow_models.make_arrays(classes=20)
    inputs = [torchvision_input(file) for file in files]

    def expected() -> np.ndarray:
        return np.stack([narrow_models.logits(arrays, image) for image in inputs])

    last = spread(arrays["fc8.weight"], arrays["fc8.bias"], expected())
    arrays["fc8.weight"], arrays["fc8.bias"] = last
    named = narrow_models.renamed(arrays, narrow_models.torchvision_prefixes())
    (tmp_path / "alexnet.pth").write_bytes(torch_archive.archive_of(named))

    trained = alexnet_jax.load(tmp_path / "alexnet.pth")
    crops = center_crop(trained.transform(files), 224)
    np.testing.assert_array_equal(crops, np.stack([torchvision_crop(file) for file in files]))
    assert_same_answers(trained.probabilities(files), expected(), different=3)


def test_caffe_s_path(files: list[Path], tmp_path: Path) -> None:
    """A mean image with a gradient shows whether it is cropped where the image is.

    OpenCV rounds in two steps: pixels differ by less than a gray level from the exact ones here.
    The parity tests compare with OpenCV itself.
    """
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    mean = np.stack([90 + (rows + columns) / 30, 120 - columns / 9, 100 + rows / 10])  # BGR
    layers = caffe_numpy.network(classes=20)
    arrays = caffe_numpy.make_arrays(layers)
    (tmp_path / "mean.binaryproto").write_bytes(caffe_numpy.mean_file(mean))

    def load() -> Any:
        (tmp_path / "caffe.caffemodel").write_bytes(caffe_numpy.encode(layers, arrays))
        mean_file = str(tmp_path / "mean.binaryproto")
        return alexnet_jax.load(tmp_path / "caffe.caffemodel", mean=mean_file)

    stored = load().transform(files)
    for image, file in zip(stored, files, strict=True):
        exact = bilinear(decode(file.read_bytes(), 3).astype(float), 256)
        assert np.abs(image - exact).max() < 1
        assert abs((image - exact).mean()) < 0.2
    inputs = [caffe_input(image[..., ::-1].transpose(2, 0, 1), mean) for image in stored]

    def expected() -> np.ndarray:
        return np.stack([caffe_numpy.logits(layers, arrays, image) for image in inputs])

    arrays["fc8"] = spread(*arrays["fc8"], expected())
    assert_same_answers(load().probabilities(files), expected(), different=3)
