"""Files that PyTorch itself writes, and the logits of the models that wrote them."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")
nn = torch.nn

from safetensors.torch import load_file, save_file  # noqa: E402
from torch_modules import jiecaoyu, randomized, torchvision  # noqa: E402

from alexnet_jax import weights  # noqa: E402
from alexnet_jax.errors import InputError  # noqa: E402
from alexnet_jax.models import AlexNet  # noqa: E402
from alexnet_jax.weights import ModelFile, ReadOptions  # noqa: E402
from alexnet_jax.weights.layout import spec_of  # noqa: E402


def images_of(size: int) -> np.ndarray:
    ramp = np.linspace(-80, 80, size, dtype=np.float32)[:, None]
    noise = np.random.default_rng(2).normal(0, 30, (2, size, size, 3)).astype(np.float32)
    return noise + ramp * np.array([1, 0.2, -0.5], np.float32)


def assert_same_logits(found: ModelFile, model: Any, *, bgr: bool = False) -> None:
    size = spec_of(found.config).input_size
    images = images_of(size)
    with torch.no_grad():
        planes = images[..., ::-1] if bgr else images
        expected = model(torch.from_numpy(planes.transpose(0, 3, 1, 2).copy())).numpy()
    module = AlexNet(spec_of(found.config), found.config["model.num_classes"])
    ours = np.asarray(jax.jit(module.apply)({"params": found.params}, images))
    assert np.linalg.norm(ours - expected) <= 1e-4 * np.linalg.norm(expected)


Save = Callable[[Any, Path], Any]
SAVES: Mapping[str, Save] = {
    "archive": lambda model, path: torch.save(model.state_dict(), path),
    "stream": lambda model, path: torch.save(
        model.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "protocol 4": lambda model, path: torch.save(model.state_dict(), path, pickle_protocol=4),
    "parameters": lambda model, path: torch.save(dict(model.named_parameters()), path),
    "parallel": lambda model, path: torch.save(nn.DataParallel(model).state_dict(), path),
    "checkpoint": lambda model, path: torch.save(
        {
            "epoch": 90,
            "arch": "alexnet",
            "state_dict": model.state_dict(),
            "best_acc1": torch.tensor(56.5),
            "optimizer": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict(),
        },
        path,
    ),
    "model": lambda model, path: torch.save({"model": model.state_dict()}, path),
    "safetensors": lambda model, path: save_file(model.state_dict(), path),
}


@pytest.mark.parametrize("kind", SAVES)
def test_torchvision(kind: str, tmp_path: Path) -> None:
    model = randomized(torchvision())
    SAVES[kind](model, tmp_path / "weights.pth")
    assert_same_logits(weights.read(tmp_path / "weights.pth", ReadOptions()), model)


@pytest.mark.parametrize("kind", ["archive", "stream", "checkpoint"])
def test_jiecaoyu(kind: str, tmp_path: Path) -> None:
    model = randomized(jiecaoyu())
    model.features = nn.DataParallel(model.features)  # as its training script does
    SAVES[kind](model, tmp_path / "alexnet.pth.tar")
    found = weights.read(tmp_path / "alexnet.pth.tar", ReadOptions())
    model.features = model.features.module
    assert_same_logits(found, model, bgr=True)


def test_half_width(tmp_path: Path) -> None:
    model = randomized(torchvision((48, 128, 192, 192, 128)))
    torch.save(model.state_dict(), tmp_path / "AlexNet.pth")
    found = weights.read(tmp_path / "AlexNet.pth", ReadOptions())
    assert found.config["augment.channel_std"] == (127.5, 127.5, 127.5)
    assert_same_logits(found, model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["archive", "stream", "safetensors"])
def test_other_types(kind: str, dtype: str, tmp_path: Path) -> None:
    model = randomized(torchvision()).to(getattr(torch, dtype))
    SAVES[kind](model, tmp_path / "weights.pth")
    found = weights.read(tmp_path / "weights.pth", ReadOptions())
    expected = model.classifier[4].weight.detach().float().numpy().T
    np.testing.assert_array_equal(found.params["fc7"]["kernel"], expected)


def test_safetensors_load_into_pytorch(tmp_path: Path) -> None:
    model = randomized(torchvision())
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found = weights.read(tmp_path / "weights.pth", ReadOptions())
    weights.write(tmp_path / "ours.safetensors", "safetensors", found)
    again = torchvision()
    again.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    for name, array in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], array), name


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(torchvision(), tmp_path / "model.pth")
    with pytest.raises(InputError, match="state_dict"):
        weights.read(tmp_path / "model.pth", ReadOptions())


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(InputError):
        weights.read(tmp_path / "model.pt", ReadOptions())


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    model = randomized(torchvision((64, 192, 384, 256, 256), 4096, 1000))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found = weights.read(tmp_path / "weights.pth", ReadOptions())
    assert not [path for path in found.config if path.startswith("model.layers.")]
    assert found.classes is not None
    assert found.classes.labels[281] == "tabby, tabby cat"
    assert_same_logits(found, model)
