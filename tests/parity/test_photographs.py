"""From photographs and full weight files to probabilities, against other programs' whole path.

Either Pillow resizes and PyTorch runs the model that it saved, or OpenCV resizes and runs the
.caffemodel.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")
cv2 = pytest.importorskip("cv2", reason="needs the parity extra: make parity")

import caffe_numpy  # noqa: E402
from answers import assert_same_answers, spread  # noqa: E402
from PIL import Image  # noqa: E402
from torch_modules import torchvision  # noqa: E402
from transforms import caffe_input, caffe_warp, torchvision_crop, torchvision_input  # noqa: E402

import alexnet_jax  # noqa: E402
from alexnet_jax.data.images import warp  # noqa: E402
from alexnet_jax.preprocessing.augment import center_crop  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ccby_imagenet_like_1000.zip"
COUNT, CUT = 100, 40


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first photographs, squares of 299 pixels, and parts of some of them of other ratios."""
    if not SHARED.is_file():
        pytest.skip("the photographs of ../shared/data are not here")
    folder, paths = tmp_path_factory.mktemp("photographs"), []
    with zipfile.ZipFile(SHARED) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:COUNT]
        for name in names:
            paths.append(folder / Path(name).name)
            paths[-1].write_bytes(archive.read(name))
    for number, path in enumerate(paths[:CUT]):
        short = 298 - 4 * number
        size = (short, 299) if number % 2 else (299, short)
        paths.append(path.with_stem(f"{path.stem}_cut"))
        Image.open(path).crop((0, 0, *size)).save(paths[-1], quality=95)
    return paths


def test_torchvision_s_path(photographs: list[Path], tmp_path: Path) -> None:
    model = torchvision((64, 192, 384, 256, 256), 4096, 1000).eval()
    inputs = torch.tensor(np.stack([torchvision_input(path) for path in photographs]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(random_array(name, parameter.shape)))
        last = model.classifier[-1]
        arrays = spread(last.weight.numpy(), last.bias.numpy(), model(inputs).numpy())
        for parameter, array in zip((last.weight, last.bias), arrays, strict=True):
            parameter.copy_(torch.tensor(array))
        expected = model(inputs).numpy()
    torch.save(model.state_dict(), tmp_path / "alexnet.pth")

    trained = alexnet_jax.load(tmp_path / "alexnet.pth")
    crops = center_crop(trained.transform(photographs), 224)
    np.testing.assert_array_equal(crops, np.stack([torchvision_crop(path) for path in photographs]))
    assert_same_answers(trained.probabilities(photographs), expected, different=10)


def test_caffe_s_path(photographs: list[Path], tmp_path: Path) -> None:
    stored = np.stack([caffe_warp(path) for path in photographs])
    mean = stored.mean(axis=0, dtype=np.float64).astype(np.float32)
    layers = [
        layer._replace(fields={"num_output": 4096}) if layer.name in ("fc6", "fc7") else layer
        for layer in caffe_numpy.network("alexnet", 1000, (96, 256, 384, 384, 256))
    ]
    arrays = {
        name: (random_array(f"{name}.weight", kernel.shape), random_array(name, bias.shape))
        for name, (kernel, bias) in caffe_numpy.make_arrays(layers).items()
    }
    inputs = [caffe_input(image, mean) for image in stored]
    expected = run_by_opencv(layers, arrays, inputs)
    arrays["fc8"] = spread(*arrays["fc8"], expected)
    expected = run_by_opencv(layers, arrays, inputs)
    (tmp_path / "caffe.caffemodel").write_bytes(caffe_numpy.encode(layers, arrays))
    (tmp_path / "mean.binaryproto").write_bytes(caffe_numpy.mean_file(mean))

    trained = alexnet_jax.load(
        tmp_path / "caffe.caffemodel", mean=str(tmp_path / "mean.binaryproto")
    )
    rgb = stored[:, ::-1].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(trained.transform(photographs), rgb)
    assert_same_answers(trained.probabilities(photographs), expected, different=10)


def random_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns weights that preserve the scale of the signal, or biases."""
    std = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def run_by_opencv(layers: list, arrays: caffe_numpy.Arrays, inputs: list) -> np.ndarray:
    """Returns logits, [images, classes]."""
    text, content = caffe_numpy.prototxt(layers).encode(), caffe_numpy.encode(layers, arrays)
    model = cv2.dnn.readNetFromCaffe(np.frombuffer(text, "u1"), np.frombuffer(content, "u1"))
    model.setInput(np.stack(inputs))
    return model.forward()


@pytest.mark.parametrize("channels", [1, 3])
def test_warp_is_opencv_s_resize(channels: int) -> None:
    rng = np.random.default_rng(channels)
    shapes = [(1, 1, 7), (2, 900, 64), (900, 2, 64), (512, 512, 256), (128, 256, 256)]
    for height, width, size in [*shapes, *rng.integers(1, 600, (100, 3)).tolist()]:
        image = rng.integers(0, 256, (height, width, channels), np.uint8)
        expected = cv2.resize(image, (size, size)).reshape(size, size, channels)
        np.testing.assert_array_equal(warp(image, size), expected)
