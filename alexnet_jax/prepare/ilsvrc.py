"""The official files of ILSVRC 2012: nested tars, read where they lie, never unpacked."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from scipy.io import loadmat

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import FilePart, Inputs, places, root_of

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
# Files that hold the labels of the validation pictures, in the order in which they are looked for.
VAL_LABELS = (DEVKIT, "val.txt", "imagenet_2012_validation_synset_labels.txt")

_META = "data/meta.mat"
_GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


def open_inputs(config: ConfigDict) -> Inputs:
    """Lists the pictures of the official tars; class indices go by sorted WordNet id.

    Reads ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and, for the labels of the latter, one of
    VAL_LABELS: the official development kit, Caffe's val.txt, or a line with a WordNet id each.

    Raises:
      InputError: a file is missing, cut short or does not fit the others.
    """
    root, splits = root_of(config), places(config)
    if set(splits) - {"train", "val"}:
        raise InputError("prepare.input=ilsvrc has the splits 'train' and 'val'.")
    inner = list(_members(root / TRAIN_TAR))
    table = classes.from_ids(sorted(Path(member.name).stem for member in inner))
    words = _words_of_devkit(root / DEVKIT) if (root / DEVKIT).exists() else None
    words = classes.find(root, config.prepare.class_table) or words
    pictures = {}
    if "train" in splits:
        pictures["train"] = _train_pictures(root / TRAIN_TAR, inner, table)
    if "val" in splits:
        pictures["val"] = _val_pictures(root, table)
    return Inputs(table.with_labels_of(words), pictures)


def _members(path: Path, start: int = 0, end: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yields the files in a tar, or in the one that lies in bytes `start` to `end` of it."""
    try:
        with path.open("rb") as file:
            end = path.stat().st_size if end is None else end
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > end:
                        raise tarfile.ReadError(f"{member.name} ends beyond it")
                    if member.isfile():
                        yield member
                    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps 1.28 million
                # tarfile takes a tar that was cut between two files for whole.
                file.seek(tar.offset)
                last = file.read(max(min(tarfile.BLOCKSIZE, end - file.tell()), 0))
                if last != tarfile.NUL * tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("its end is missing")
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}: get it from https://image-net.org.") from error
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is cut short or no tar ({error}): get it again.") from error


def _train_pictures(path: Path, inner: list[tarfile.TarInfo], table: ClassTable) -> list[FilePart]:
    """Lists the pictures of the tars in the train tar, by class, in the order of the tar."""
    labels = {name: label for label, name in enumerate(table.ids)}
    pictures = []
    for tar in sorted(inner, key=lambda member: member.name):
        class_name = Path(tar.name).stem
        for member in _members(path, tar.offset_data, tar.offset_data + tar.size):
            name = f"train/{class_name}/{Path(member.name).name}"
            pictures.append(
                FilePart(name, labels[class_name], str(path), member.offset_data, member.size)
            )
    return pictures


def _val_pictures(root: Path, table: ClassTable) -> list[FilePart]:
    """Lists the validation pictures by name, each with its label."""
    members = sorted(_members(root / VAL_TAR), key=lambda member: Path(member.name).name)
    labels_file = next((root / name for name in VAL_LABELS if (root / name).exists()), None)
    if labels_file is None:
        raise InputError(
            f"{root} has no labels of the validation pictures: put one of {', '.join(VAL_LABELS)} "
            "there."
        )
    ids = _val_ids(labels_file, table, [Path(member.name).name for member in members])
    labels = {name: label for label, name in enumerate(table.ids)}
    unknown = next((name for name in ids if name not in labels), None)
    if unknown is not None:
        raise InputError(f"{labels_file} has the synset {unknown!r}, which the train tar has not.")
    if len(ids) != len(members):
        raise InputError(
            f"{labels_file} has {len(ids)} labels, but {VAL_TAR} has {len(members)} pictures."
        )
    return [
        FilePart(
            f"val/{Path(member.name).name}",
            labels[name],
            str(root / VAL_TAR),
            member.offset_data,
            member.size,
        )
        for member, name in zip(members, ids, strict=True)
    ]


def _val_ids(path: Path, table: ClassTable, names: list[str]) -> list[str]:
    """Returns the WordNet id of each validation picture, in the order of their names."""
    if path.name == DEVKIT:
        ids = _synsets_of_devkit(path)
        numbers = _read_in_devkit(path, _GROUND_TRUTH).split()
        return [
            ids.get(int(number), (f"ILSVRC2012_ID {number.decode()}", ""))[0] for number in numbers
        ]
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if path.name != "val.txt":
        return [line[0] for line in lines]
    try:
        label_of = {Path(name).name: int(label) for name, label in lines}
        labels = [label_of[name] for name in names]
    except ValueError as error:
        raise InputError(f"{path} has a line that is not 'NAME LABEL'.") from error
    except KeyError as error:
        raise InputError(f"{path} has no label of {error.args[0]}.") from error
    wrong = next((label for label in labels if not 0 <= label < len(table.ids)), None)
    if wrong is not None:
        raise InputError(
            f"{path} has the label {wrong}, and the classes of the train tar are 0 to "
            f"{len(table.ids) - 1}."
        )
    return [table.ids[label] for label in labels]


def _words_of_devkit(path: Path) -> ClassTable:
    """Returns the WordNet ids of the development kit and their words."""
    ids, words = zip(*_synsets_of_devkit(path).values(), strict=True)
    return ClassTable(ids, words)


def _synsets_of_devkit(path: Path) -> dict[int, tuple[str, str]]:
    """Returns {ILSVRC2012_ID: (WordNet id, words)} of the synsets that have no children.

    ILSVRC2012_ID counts from 1 and does not follow the WordNet ids.
    """
    try:
        table: Any = loadmat(io.BytesIO(_read_in_devkit(path, _META)), squeeze_me=True)["synsets"]
        return {
            int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]))
            for row in table
            if not int(row["num_children"])
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{_META} in {path} holds no table of synsets.") from error


def _read_in_devkit(path: Path, end: str) -> bytes:
    """Returns the bytes of one file of the development kit."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(end) else None
                if file:
                    return file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{path} is cut short or no tar ({error}): get it again.") from error
    raise InputError(f"{path} has no {end}: get it again.")
