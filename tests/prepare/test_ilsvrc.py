"""The official tars of ILSVRC, in miniature: nested, with and without the development kit."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from options import data_options
from scipy.io import savemat

from alexnet_jax.errors import InputError
from alexnet_jax.prepare import ilsvrc
from alexnet_jax.prepare.inputs import InputOptions, Inputs, name_of, open_inputs

WNIDS = ["n02", "n01", "n03"]
VAL = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)]


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return memory.getvalue()


def devkit(ground_truth: str, meta: bytes | None = None) -> bytes:
    """Ids that follow no order, and a synset with children, as in the real one."""
    rows = [(7, "n01", "one"), (2, "n02", "two, second"), (9, "n03", "three"), (10, "n99", "life")]
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    table = np.array([(*row, "", row[1] == "n99") for row in rows], kind)
    memory = io.BytesIO()
    savemat(memory, {"synsets": table.reshape(-1, 1)})
    return tar_of(
        {
            "ILSVRC2012_devkit_t12/data/meta.mat": meta or memory.getvalue(),
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": (
                ground_truth.encode()
            ),
        },
        "w:gz",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inner = {
        f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": f"{wnid} {i}".encode() for i in range(4)})
        for wnid in WNIDS
    }
    (tmp_path / ilsvrc.TRAIN_TAR).write_bytes(tar_of(inner))
    val = {name: name.encode() for name in reversed(VAL)}
    (tmp_path / ilsvrc.VAL_TAR).write_bytes(tar_of(val))
    return tmp_path


def open_root(root: Path, *splits: str) -> Inputs:
    data = data_options("ilsvrc", root, image_size=16)
    return open_inputs(InputOptions(data, splits or ("train", "val"), None, (), ""))


def read(inputs: Inputs, split: str) -> list[tuple[str, bytes, int]]:
    source = inputs[split]
    examples = source.read(np.arange(len(source)))
    return [(name_of(source, index), *example) for index, example in enumerate(examples)]


def test_train(root: Path) -> None:
    inputs = open_root(root, "train")
    assert inputs["train"].classes.ids == ("n01", "n02", "n03")
    assert read(inputs, "train") == [
        (f"train/{wnid}/{wnid}_{i}.JPEG", f"{wnid} {i}".encode(), label)
        for label, wnid in enumerate(sorted(WNIDS))
        for i in range(4)
    ]


SYNSETS = "imagenet_2012_validation_synset_labels.txt"


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n9\n")),
        ("val.txt", "".join(f"{VAL[i]} {label}\n" for i, label in enumerate([2, 0, 1, 1, 2]))),
        (SYNSETS, "n03\nn01\nn02\nn02\nn03\n"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_val(root: Path, name: str, contents: str | bytes) -> None:
    (root / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    inputs = open_root(root)
    assert list(inputs) == ["train", "val"]
    assert read(inputs, "val") == [
        (f"val/{image}", image.encode(), label)
        for image, label in zip(VAL, [2, 0, 1, 1, 2], strict=True)
    ]
    labels = (
        ("one", "two, second", "three") if name == ilsvrc.DEVKIT else inputs["train"].classes.ids
    )
    assert inputs["train"].classes.labels == labels


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (SYNSETS, "n01\n" * 4, "4 labels.* 5 images"),
        (SYNSETS, "n07\n" * 5, "'n07'"),
        ("val.txt", f"{VAL[0]} 0\n", "1 labels.* 5 images"),
        ("val.txt", "".join(f"{n} {i}\n" for i, n in enumerate(VAL)), r"val\.txt: .*'3'.* 0 to 2"),
        ("val.txt", "".join(f"{name} -1\n" for name in VAL), "'-1'"),
        ("val.txt", "one two three\n", r"prepare\.columns"),
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n1\n"), ilsvrc.DEVKIT),
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n"), "4 labels.* 5 images"),
        (ilsvrc.DEVKIT, devkit("1\n")[:100], ilsvrc.DEVKIT),
        (ilsvrc.DEVKIT, tar_of({"kit/data/other": b""}, "w:gz"), ilsvrc.DEVKIT),
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n9\n", b"x" * 500), ilsvrc.DEVKIT),
    ],
    ids=map(str, range(11)),  # an archive contains the time, which must not name a test
)
def test_wrong_labels(root: Path, name: str, contents: str | bytes, message: str) -> None:
    (root / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(InputError, match=message):
        open_root(root)


def test_missing_files(root: Path) -> None:
    with pytest.raises(InputError, match=ilsvrc.DEVKIT):
        open_root(root)
    with pytest.raises(InputError, match=r"prepare\.splits"):
        open_root(root, "test")
    (root / ilsvrc.TRAIN_TAR).unlink()
    with pytest.raises(InputError, match=ilsvrc.TRAIN_TAR):
        open_root(root)
    os.mkfifo(root / ilsvrc.TRAIN_TAR)
    with pytest.raises(InputError, match=ilsvrc.TRAIN_TAR):
        open_root(root)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.7])
def test_a_truncated_tar(root: Path, share: float) -> None:
    path = root / ilsvrc.TRAIN_TAR
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"train\.tar is truncated"):
        open_root(root, "train")


def test_a_tar_truncated_between_two_files(root: Path) -> None:
    tar = tar_of({f"{wnid}_1.JPEG": b"x" * 100 for wnid in WNIDS})
    outer = tar_of({"n01.tar": tar, "n02.tar": tar[: 2 * 1024]})
    (root / ilsvrc.TRAIN_TAR).write_bytes(outer)
    with pytest.raises(InputError, match="its end is missing"):
        open_root(root, "train")
