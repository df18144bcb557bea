"""From photographs to probabilities, against torchvision's and Caffe's path by other libraries.

Pillow or OpenCV decodes and resizes, numpy prepares, PyTorch runs a full model with the same
parameters in its own layout.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")
cv2 = pytest.importorskip("cv2", reason="needs the parity extra: make parity")

from cases import make_case  # noqa: E402
from PIL import Image  # noqa: E402
from torch_models import forward, to_torch  # noqa: E402
from transforms import caffe_input, caffe_warp, torchvision_crop, torchvision_input  # noqa: E402
from whole_path import (  # noqa: E402
    CAFFE,
    TORCHVISION,
    assert_same_answers,
    images_of,
    input_of,
    logits_of,
)

from alexnet_jax.data.images import warp  # noqa: E402
from alexnet_jax.preprocessing.augment import center_crop  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ccby_imagenet_like_1000.zip"
COUNT = 100


@pytest.fixture(scope="module", params=["as they are", "cut"])
def photographs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list:
    """The first photographs, which are squares of 299 pixels; or parts of them of any ratio."""
    if not SHARED.is_file():
        pytest.skip("the photographs of ../shared/data are not here")
    folder, paths = tmp_path_factory.mktemp("photographs"), []
    with zipfile.ZipFile(SHARED) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:COUNT]
        for number, name in enumerate(names):
            paths.append(folder / Path(name).name)
            paths[-1].write_bytes(archive.read(name))
            if request.param == "cut":
                image = Image.open(io.BytesIO(archive.read(name)))
                short = 299 - 1 - number % 90
                image.crop((0, 0, *((short, 299) if number % 2 else (299, short)))).save(
                    paths[-1], quality=95
                )
    return paths


def test_torchvision_s_path(photographs: list[Path]) -> None:
    images = images_of(photographs, TORCHVISION)
    crops = np.stack([torchvision_crop(path) for path in photographs])
    np.testing.assert_array_equal(center_crop(images, 224), crops)
    case = make_case("torchvision", 3, "float32", num_classes=1000)
    inputs = torch.tensor(np.stack([torchvision_input(path) for path in photographs]))
    with torch.no_grad():
        expected = forward(case.model.spec, to_torch(case), inputs).numpy()
    logits = logits_of(case, input_of(images, TORCHVISION))
    assert_same_answers(logits, expected, different=10)


def test_caffe_s_path(photographs: list[Path]) -> None:
    """The peer works in BGR throughout, with the input channels of conv1 reversed."""
    images = images_of(photographs, CAFFE)
    stored = np.stack([caffe_warp(path) for path in photographs])
    np.testing.assert_array_equal(images, stored[:, ::-1].transpose(0, 2, 3, 1))
    mean = stored.mean(axis=0, dtype=np.float64).astype(np.float32)
    case = make_case("caffe", 4, "float32", num_classes=1000)
    peers = to_torch(case)
    peers["conv1"][0] = peers["conv1"][0].flip(1)
    inputs = torch.tensor(np.stack([caffe_input(image, mean) for image in stored]))
    with torch.no_grad():
        expected = forward(case.model.spec, peers, inputs).numpy()
    logits = logits_of(case, input_of(images, CAFFE, mean[::-1].transpose(1, 2, 0)))
    assert_same_answers(logits, expected, different=10)


@pytest.mark.parametrize("channels", [1, 3])
def test_warp_is_opencv_s_resize(channels: int) -> None:
    rng = np.random.default_rng(channels)
    shapes = [(1, 1, 7), (2, 900, 64), (900, 2, 64), (512, 512, 256), (128, 256, 256)]
    for height, width, size in [*shapes, *rng.integers(1, 600, (100, 3)).tolist()]:
        image = rng.integers(0, 256, (height, width, channels), np.uint8)
        expected = cv2.resize(image, (size, size)).reshape(size, size, channels)
        np.testing.assert_array_equal(warp(image, size), expected)
