"""ONNX files against onnxruntime: the zoo's bvlcalexnet, and what PyTorch exports."""

from pathlib import Path

import caffe_numpy
import imported
import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the parity extra: make parity")
torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")

import onnx_models  # noqa: E402

from alexnet_jax import weights  # noqa: E402
from alexnet_jax.weights import ReadOptions  # noqa: E402


def peer(file: Path) -> np.ndarray:
    """Returns the first output for `imported.planes(224)`."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (name,) = (x.name for x in session.get_inputs())
    return np.asarray(session.run(None, {name: imported.planes(224)[None]})[0][0])


def test_bvlcalexnet(tmp_path: Path) -> None:
    arrays = caffe_numpy.make_arrays(onnx_models.bvlc_layers(), 224)
    file = tmp_path / "a.onnx"
    file.write_bytes(onnx_models.bvlc_alexnet(arrays, softmax=False).SerializeToString())
    assert imported.difference(weights.read(file, ReadOptions()), peer(file), 224, "bgr") < 1e-4


def narrow_model(lrn: bool, widths: tuple[int, ...] = (8, 12, 16, 12, 8)) -> "torch.nn.Module":
    """Returns torchvision's AlexNet, or one with norms as tutorials have it, with few features."""
    a, b, c, d, e = widths
    nn = torch.nn
    torch.manual_seed(0)

    def norm() -> list["torch.nn.Module"]:
        return [nn.LocalResponseNorm(5, alpha=1e-3, beta=0.6, k=2.0)] if lrn else []

    return nn.Sequential(
        *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(inplace=True), *norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(inplace=True), *norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c, d, 3, padding=1, groups=2 if lrn else 1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *([] if lrn else [nn.AdaptiveAvgPool2d(6)]),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(36 * e, 20), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(20, 24), nn.ReLU(inplace=True), nn.Linear(24, 5)),
    ).eval()


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("lrn", [False, True], ids=["torchvision", "with-norms"])
def test_pytorchs_exports(lrn: bool, exporter: str, tmp_path: Path) -> None:
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="PyTorch's second exporter needs onnxscript")
    model, file = narrow_model(lrn), tmp_path / "a.onnx"
    example = (torch.zeros(1, 3, 224, 224),)
    torch.onnx.export(model, example, file, dynamo=exporter == "dynamo", verbose=False)
    with torch.inference_mode():
        expected = model(torch.from_numpy(imported.planes(224)[None])).numpy()[0]
    found = weights.read(file, ReadOptions())
    assert imported.difference(found, expected, 224, "rgb") < 1e-4
    np.testing.assert_allclose(peer(file), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_the_half_width_model_has_pixels_of_its_own(tmp_path: Path) -> None:
    model, file = narrow_model(lrn=False, widths=(48, 128, 192, 192, 128)), tmp_path / "a.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, verbose=False)
    config = weights.read(file, ReadOptions()).config
    assert (config["data.image_size"], config["data.resize"]) == (224, "stretch")
    assert config["augment.channel_std"] == (127.5, 127.5, 127.5)
