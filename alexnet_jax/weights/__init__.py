"""Reads weight files of other programs into models of this package, and writes them.

A format is one module: `matches(head, path)` recognizes its files by their content
(it raises `InputError` where they are sure to be damaged),
`read_file(path, options)` reads one, and `write_file(path, model_file)`, where it exists, writes
one to exactly that path. Its error messages start with a verb ("is damaged: ..."), as `read` puts
the path in front of them. Its name and module are a row of `FORMATS`.
"""

import dataclasses
import hashlib
import importlib
from pathlib import Path
from typing import Any

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError, did_you_mean
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

# Name of each format -> its module in this package, imported when it is needed. The first one whose
# `matches` accepts a file reads it, so formats without magic bytes come last.
FORMATS = {
    "torch": "torch_file",
    "npz": "npz_file",
    "orbax": "orbax_tree",
    "safetensors": "safetensors_file",
    "flax": "flax_file",
    "npy": "numpy_file",
    "caffe": "caffe_file",
    "onnx": "onnx_file",
}
WRITABLE = ("npz", "safetensors", "npy", "onnx")  # those that have `write_file`

_HEAD = 4096  # bytes passed to `matches`


def read(path: Path, options: ReadOptions) -> ModelFile:
    """Reads a weight file of any format, which is recognized by its content.

    Raises:
      InputError: its format is unknown, or it is damaged, does not fit the options, or is refused.
      OSError: it cannot be read.
    """
    try:
        digest = _sha256(path)
        if options.sha256 and options.sha256.lower() != digest:
            actual = f"has the sha256 {digest}" if digest else "is a folder without a sha256"
            raise InputError(f"{actual}, expected {options.sha256}.")
        name, module = _recognize(path)
        found: ModelFile = module.read_file(path, options)
        if options.mean and found.mean is None:
            found = _with_mean(found, Path(options.mean).expanduser(), options.channel_order)
        notes = (
            f"{path.name}: format {name}, sha256 {digest or 'none (a folder)'}.",
            *found.notes,
        )
        return dataclasses.replace(found, notes=notes, classes=_classes(found, options))
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def write(path: Path, format_name: str, model_file: ModelFile) -> None:
    """Writes a weight file atomically.

    Args:
      path: of the file.
      format_name: one of `WRITABLE`.
      model_file: the model; its config holds all keys of its model and preprocessing that differ
        from their defaults.

    Raises:
      InputError: the format cannot be written, or does not hold such models.
    """
    if format_name not in WRITABLE:
        listed, hint = ", ".join(WRITABLE), did_you_mean(format_name, WRITABLE)
        raise InputError(f"The format {format_name!r} cannot be written, only {listed}.{hint}")
    module = module_of(format_name)
    write_atomically(path, lambda partial: module.write_file(partial, model_file))


def module_of(name: str) -> Any:
    """Returns the module of a format."""
    return importlib.import_module(f"{__name__}.{FORMATS[name]}")


def _recognize(path: Path) -> tuple[str, Any]:
    """Returns the name and module of a file's format."""
    head = b""
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(_HEAD)
    for name in FORMATS:
        module = module_of(name)
        if module.matches(head, path):
            return name, module
    raise InputError(f"is not a weight file of a known format ({', '.join(FORMATS)}).")


def _with_mean(model_file: ModelFile, path: Path, channel_order: str | None) -> ModelFile:
    """Returns a model with the mean image of a file of Caffe's."""
    mean = module_of("caffe").read_mean(path, channel_order or "bgr")
    config = {key: x for key, x in model_file.config.items() if key != "augment.channel_mean"}
    config |= {"augment.mean": "image_at_crop", "data.image_size": len(mean)}
    notes = (*model_file.notes, f"Mean image of {len(mean)} pixels.")
    return dataclasses.replace(model_file, config=config, mean=mean, notes=notes)


def _sha256(path: Path) -> str:
    """Returns the checksum of a file, or "" for a folder."""
    if path.is_dir():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _classes(model_file: ModelFile, options: ReadOptions) -> ClassTable:
    """Returns the classes of the outputs."""
    count = model_file.config["model.num_classes"]
    table = model_file.classes
    if options.classes:
        table = classes.read(Path(options.classes).expanduser())
    elif table is None and count == 1000:
        table = classes.imagenet()
    table = table or classes.from_ids(f"class {index}" for index in range(count))
    if len(table.ids) != count:
        raise InputError(
            f"has {count:,} outputs but {len(table.ids):,} class names: set "
            "weights.classes to the class table of its outputs."
        )
    return table
