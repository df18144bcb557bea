"""Recognizing files, their checksum and the names of their classes."""

import hashlib
from pathlib import Path

import caffe_numpy
import narrow_models
import numpy as np
import pytest
import torch_archive

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.weights import FORMATS, ReadOptions


def write_torch(path: Path, classes: int = 5) -> Path:
    path.write_bytes(torch_archive.archive_of(narrow_models.torchvision_arrays(classes=classes)))
    return path


def test_formats_are_recognized_by_their_content(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.npz")
    assert "format torch" in weights.read(path, ReadOptions()).notes[0]


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", bytes(5000), b"\x89PNG\r\n\x1a\n"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        weights.read(path, ReadOptions())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["torch", "npz"])
def test_an_archive_that_was_cut_off_is_damaged(kind: str, tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pth")
    if kind == "npz":
        np.savez(path := tmp_path / "weights.npz", array=np.zeros(1000, np.float32))
    content = path.read_bytes()
    for size in (4, 30, 1000, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:size])
        with pytest.raises(InputError) as caught:
            weights.read(path, ReadOptions())
        assert str(caught.value).startswith(f"{path} is damaged: ")


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known format"):
        weights.read(tmp_path, ReadOptions())


def test_the_checksum(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = weights.read(path, ReadOptions(sha256=digest.upper()))
    assert digest in found.notes[0]
    with pytest.raises(InputError, match=digest):
        weights.read(path, ReadOptions(sha256="0" * 64))


def test_names_of_the_classes(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pth")
    found = weights.read(path, ReadOptions()).classes
    assert found is not None
    assert found.ids[:2] == ("class 0", "class 1")
    table = tmp_path / "synset_words.txt"
    table.write_text("".join(f"n{i} name {i}\n" for i in range(5)))
    found = weights.read(path, ReadOptions(classes=str(table))).classes
    assert found is not None
    assert found.labels[4] == "name 4"
    table.write_text("n0 name\n")
    with pytest.raises(InputError, match="1 class name"):
        weights.read(path, ReadOptions(classes=str(table)))


def test_1000_outputs_are_imagenets(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pth", classes=1000)
    found = weights.read(path, ReadOptions()).classes
    assert found is not None
    assert found.ids[0] == "n01440764"


def test_formats_that_cannot_be_written(tmp_path: Path) -> None:
    found = weights.read(write_torch(tmp_path / "a.pth"), ReadOptions())
    with pytest.raises(InputError, match="'torch' cannot be written"):
        weights.write(tmp_path / "b.pth", "torch", found)
    with pytest.raises(InputError, match="Did you mean 'npz'"):
        weights.write(tmp_path / "b.npz", "nzp", found)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_refuses_other_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"some text\n")
    assert not weights.module_of(name).matches(path.read_bytes(), path)


def test_a_mean_image_with_any_format(tmp_path: Path) -> None:
    mean = np.random.default_rng(5).uniform(90, 130, (3, 256, 256)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(caffe_numpy.mean_file(mean))
    prefixes = narrow_models.torchvision_prefixes((0, 4, 8, 10, 12), (0, 3, 6))
    arrays = narrow_models.renamed(narrow_models.make_arrays(narrow_models.CAFFE), prefixes)
    path = tmp_path / "alexnet.pth.tar"
    path.write_bytes(torch_archive.archive_of(arrays))
    found = weights.read(path, ReadOptions(mean=str(tmp_path / "mean.binaryproto")))
    np.testing.assert_array_equal(found.mean, mean[::-1].transpose(1, 2, 0))
    assert found.config["augment.mean"] == "image_at_crop"
    assert "augment.channel_mean" not in found.config
