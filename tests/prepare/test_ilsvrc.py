"""The official tars of ILSVRC, in miniature: nested, with and without the development kit."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.io import savemat

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import ilsvrc
from alexnet_jax.prepare.inputs import open_inputs

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


def devkit(ground_truth: str) -> bytes:
    """Ids that follow no order, and a synset with children, as in the real one."""
    rows = [(7, "n01", "one"), (2, "n02", "two, second"), (9, "n03", "three"), (10, "n99", "life")]
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    table = np.array([(*row, "", row[1] == "n99") for row in rows], kind)
    memory = io.BytesIO()
    savemat(memory, {"synsets": table.reshape(-1, 1)})
    return tar_of(
        {
            "ILSVRC2012_devkit_t12/data/meta.mat": memory.getvalue(),
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


def config(root: Path, *splits: str) -> ConfigDict:
    given = {"prepare.input": "ilsvrc", "prepare.root": str(root)}
    tree, _ = schema.merge(SCHEMA, given | ({"prepare.splits": splits} if splits else {}))
    return ConfigDict(tree)


def test_train(root: Path) -> None:
    inputs = open_inputs(config(root, "train"))
    assert inputs.classes.ids == ("n01", "n02", "n03")
    assert [(picture.name, *picture.read()) for picture in inputs.splits["train"]] == [
        (f"train/{wnid}/{wnid}_{i}.JPEG", f"{wnid} {i}".encode(), label)
        for label, wnid in enumerate(sorted(WNIDS))
        for i in range(4)
    ]


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n9\n")),
        ("val.txt", "".join(f"{VAL[i]} {label}\n" for i, label in enumerate([2, 0, 1, 1, 2]))),
        ("imagenet_2012_validation_synset_labels.txt", "n03\nn01\nn02\nn02\nn03\n"),
    ],
)
def test_val(root: Path, name: str, contents: str | bytes) -> None:
    (root / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    inputs = open_inputs(config(root))
    assert list(inputs.splits) == ["train", "val"]
    labels = [2, 0, 1, 1, 2]
    assert [(picture.name, *picture.read()) for picture in inputs.splits["val"]] == [
        (f"val/{picture}", picture.encode(), label)
        for picture, label in zip(VAL, labels, strict=True)
    ]
    words = ("one", "two, second", "three") if name == ilsvrc.DEVKIT else inputs.classes.ids
    assert inputs.classes.labels == words


SYNSETS = "imagenet_2012_validation_synset_labels.txt"


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (SYNSETS, "n01\n" * 4, "has 4 labels, but ILSVRC2012_img_val.tar has 5 pictures"),
        (SYNSETS, "n07\n" * 5, "has the synset 'n07', which the train tar has not"),
        ("val.txt", f"{VAL[0]} 0\n", f"has no label of {VAL[1]}"),
        (
            "val.txt",
            "".join(f"{name} 3\n" for name in VAL),
            r"val\.txt has the label 3, and .* 0 to 2",
        ),
        ("val.txt", "".join(f"{name} -1\n" for name in VAL), "has the label -1"),
        ("val.txt", "one two three\n", "has a line that is not 'NAME LABEL'"),
        (ilsvrc.DEVKIT, devkit("9\n7\n2\n2\n1\n"), "has the synset 'ILSVRC2012_ID 1'"),
        (ilsvrc.DEVKIT, devkit("1\n")[:100], "is cut short or no tar"),
        (ilsvrc.DEVKIT, tar_of({"other": b""}, "w:gz"), r"has no data/ILSVRC2012_val|data/meta"),
        (ilsvrc.DEVKIT, tar_of({"data/meta.mat": b"x" * 500}, "w:gz"), "holds no table of synsets"),
    ],
)
def test_wrong_labels(root: Path, name: str, contents: str | bytes, message: str) -> None:
    (root / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(InputError, match=message):
        open_inputs(config(root))


def test_missing_files(root: Path) -> None:
    with pytest.raises(InputError, match="has no labels of the validation pictures: put one of"):
        open_inputs(config(root))
    with pytest.raises(InputError, match="has the splits 'train' and 'val'"):
        open_inputs(config(root, "test"))
    (root / ilsvrc.TRAIN_TAR).unlink()
    with pytest.raises(InputError, match=r"There is no .*train\.tar: get it from"):
        open_inputs(config(root))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.7])
def test_a_tar_that_is_cut_short(root: Path, share: float) -> None:
    path = root / ilsvrc.TRAIN_TAR
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"train\.tar is cut short or no tar .*get it again"):
        open_inputs(config(root, "train"))


def test_a_tar_that_is_cut_between_two_files(root: Path) -> None:
    tar = tar_of({f"{wnid}_1.JPEG": b"x" * 100 for wnid in WNIDS})
    outer = tar_of({"n01.tar": tar, "n02.tar": tar[: 2 * 1024]})
    (root / ilsvrc.TRAIN_TAR).write_bytes(outer)
    with pytest.raises(InputError, match=r"cut short or no tar \(its end is missing\)"):
        open_inputs(config(root, "train"))
