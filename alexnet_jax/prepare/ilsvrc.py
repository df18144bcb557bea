"""The official files of ILSVRC 2012: nested tars, which are read in place, never unpacked."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from scipy.io import loadmat

from alexnet_jax.data import classes, listing
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import InputOptions, Row
from alexnet_jax.prepare.lists import read_rows

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
# Files with the labels of the validation images, in the order in which they are looked for.
VAL_LABELS = (DEVKIT, "val.txt", "imagenet_2012_validation_synset_labels.txt")

_META = "data/meta.mat"
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


def list_rows(options: InputOptions) -> tuple[dict[str, list[Row]], classes.ClassTable]:
    """Lists the images of the official tars; the classes are in the order of their WordNet ids.

    Reads ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and, for the validation labels, one of
    VAL_LABELS: the official development kit, Caffe's val.txt, or one WordNet id per line.

    Raises:
      InputError: a file is missing, truncated or inconsistent with the others.
    """
    root, rows_of = options.data.folder, {"train": _train_rows, "val": _val_rows}
    if not options.locations.keys() <= rows_of.keys():
        raise InputError("prepare.splits: prepare.input=ilsvrc has the splits 'train' and 'val'.")
    table = classes.from_ids(sorted(Path(tar.name).stem for tar in _members(root / TRAIN_TAR)))
    rows = {split: list(rows_of[split](root)) for split in options.locations}
    if (root / DEVKIT).is_file():
        table = table.with_labels_of(_read_devkit(root / DEVKIT)[0])
    return rows, table


def _members(path: Path, start: int = 0, end: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yields the files in a tar, or in the inner tar at its bytes `start` to `end`."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: download it from https://image-net.org.")
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
                    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps 1.28 million of them
                # tarfile does not notice that a tar was truncated between two files.
                file.seek(tar.offset)
                block = file.read(tarfile.BLOCKSIZE)
                if file.tell() > end or block != tarfile.NUL * tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("its end is missing")
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is truncated or no tar ({error}): download it again.") from error


def _train_rows(root: Path) -> Iterator[Row]:
    """Yields the training images by class, in the order of the inner tars."""
    path = root / TRAIN_TAR
    for tar in sorted(_members(path), key=lambda member: member.name):
        class_id = Path(tar.name).stem
        for image in _members(path, tar.offset_data, tar.offset_data + tar.size):
            name = f"train/{class_id}/{Path(image.name).name}"
            yield Row(str(path), name, class_id, TRAIN_TAR, image.offset_data, image.size)


def _val_rows(root: Path) -> Iterator[Row]:
    """Yields the validation images, by name."""
    images = {Path(member.name).name: member for member in _members(root / VAL_TAR)}
    path = next((root / name for name in VAL_LABELS if (root / name).is_file()), None)
    if path is None:
        raise InputError(f"{root} has no validation labels: add {' or '.join(VAL_LABELS)}.")
    labels = _val_labels(path, sorted(images))
    if len(labels) != len(images):
        raise InputError(f"{path} has {len(labels)} labels for {len(images)} images in {VAL_TAR}.")
    for (name, image), label in zip(sorted(images.items()), labels, strict=True):
        yield Row(str(path), f"val/{name}", label, VAL_TAR, image.offset_data, image.size)


def _val_labels(path: Path, names: list[str]) -> list[str]:
    """Returns the WordNet id or class index of each validation image, in the order of `names`."""
    if path.name == DEVKIT:
        return _read_devkit(path)[1]
    if path.name != "val.txt":
        return listing.read_file(path).decode(errors="replace").split()
    label_of = {Path(row.name).name: row.label for row in read_rows(path, path.parent)}
    return [label_of[name] for name in names if name in label_of]


def _read_devkit(path: Path) -> tuple[classes.ClassTable, list[str]]:
    """Returns the classes of the development kit, and the WordNet id of each validation image.

    The kit numbers the classes from 1, not in the order of the WordNet ids, and also lists synsets
    with children, which are not classes.
    """
    try:
        with tarfile.open(path) as tar:
            files = {member.name.partition("/")[2]: member for member in tar}
            meta, numbers = (tar.extractfile(files[name]).read() for name in (_META, _TRUTH))  # type: ignore[union-attr]
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"].astype(int) == 0]
        table = classes.ClassTable(*(tuple(map(str, leaves[key])) for key in ("WNID", "words")))
        id_of = dict(zip(leaves["ILSVRC2012_ID"].astype(int), table.ids, strict=True))
        return table, [id_of[int(number)] for number in numbers.split()]
    except (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError) as error:
        raise InputError(f"{path} is damaged or no devkit ({error}): download it again.") from error
