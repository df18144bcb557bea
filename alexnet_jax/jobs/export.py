"""Job export: writes a trained model as a file that other programs read or run."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax import schema, weights
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.defaults import EXPORT_FORMATS, PROGRAM
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.preprocessing.crops import center_view
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.trained_model import TrainedModel, load_for
from alexnet_jax.weights import ModelFile
from alexnet_jax.weights.model_file import PREPROCESSING

PLATFORMS = ("cpu", "cuda", "tpu")  # that a StableHLO program is lowered for


def run(command: Command, console: Console) -> None:
    """Writes the model at the command's workdir as `export.format`.

    Raises:
      InputError: there is no such model, the format does not hold it, or the file cannot be
        written.
    """
    format, output = _target(command.config.export, command.output_folder)
    trained, _ = load_for(command)
    output.parent.mkdir(parents=True, exist_ok=True)
    files = [output]
    if format == PROGRAM:
        files = write_program(output, trained)
    else:
        weights.write(output, format, to_model_file(trained))
    for file in files:
        console.print(f"Wrote {file} ({file.stat().st_size:,} bytes).")


def _target(options: ConfigDict, folder: Path) -> tuple[str, Path]:
    """Returns the format and the file to write.

    Args:
      options: the config's section `export`.
      folder: where the file goes if none is named.

    Raises:
      InputError: they leave the format open, or name a folder.
    """
    output = Path(options.output).expanduser() if options.output else None
    format = options.format or (output.suffix[1:] if output else "")
    if format not in EXPORT_FORMATS:
        endings = ", ".join(f".{name}" for name in EXPORT_FORMATS)
        ending = f"ends in {output.suffix}" if output and output.suffix else "has no ending"
        problem = f"{output} {ending}: end it in" if output else "Name a file that ends in"
        raise InputError(f"{problem} one of {endings}, or set --config.export.format.")
    output = output or folder / f"model.{format}"
    if output.is_dir():
        raise InputError(f"export.output: {output} is a folder: name a file in it.")
    return format, output


def to_model_file(trained: TrainedModel) -> ModelFile:
    """Returns a model as weight files hold it: parameters, preprocessing, classes."""
    variables: Any = jax.device_get(trained.variables)
    mean = np.asarray(trained.statistics["mean"])
    config = _keys_that_travel(trained)
    if config["augment.mean"] == "channel":  # of a training split, which the file does not have
        color = tuple(mean.ravel().tolist())
        config |= {"augment.mean": "given", "augment.channel_mean": color}
    return ModelFile(
        config=config,
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        mean=mean if config["augment.mean"].startswith("image") else None,
        classes=ClassTable(trained.class_names, trained.class_labels),
    )


def _keys_that_travel(trained: TrainedModel) -> dict[str, Any]:
    """Returns the keys of the model that are set, and those of its preprocessing."""
    keys = {
        path: value
        for path, value in schema.flatten(dict(trained.config)).items()
        if (path.startswith("model.") and value is not None) or PREPROCESSING.fullmatch(path)
    }
    return {**keys, "model.num_classes": trained.model.num_outputs}


def write_program(path: Path, trained: TrainedModel) -> list[Path]:
    """Writes a StableHLO program, which JAX runs without this package, and a description.

    `jax.export.deserialize(path.read_bytes()).call(images)` returns the probabilities of the center
    crops of any number of images, float32[batch, classes]; parameters and preprocessing are part of
    the program. The description, JSON next to it, has its input, its classes and its config.

    Args:
      path: of the program.
      trained: the model.

    Returns:
      Both files.
    """
    size, channels = trained.image_size, trained.model.spec.channels

    def probabilities(images: jax.Array) -> jax.Array:
        view = center_view(images, trained.statistics, trained.augmentation)
        logits: Any = trained.model.apply(trained.variables, view)
        return jax.nn.softmax(logits)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, channels), np.uint8)
    exported = jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(images)
    description = {
        "input": {"dtype": "uint8", "shape": ["batch", size, size, channels]},
        "output": {"dtype": "float32", "shape": ["batch", len(trained.class_names)]},
        "platforms": PLATFORMS,
        "jax": jax.__version__,
        "config": _keys_that_travel(trained),
        "classes": ClassTable(trained.class_names, trained.class_labels)._asdict(),
    }
    described = path.with_name(f"{path.name}.json")
    write_atomically(path, bytes(exported.serialize()))
    write_atomically(described, json.dumps(description, indent=2) + "\n")
    return [path, described]
