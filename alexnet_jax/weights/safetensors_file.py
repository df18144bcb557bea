"""Safetensors under torchvision's names.

Where this package wrote the file, its metadata hold the config, the classes and the mean image.
"""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

from alexnet_jax.errors import InputError
from alexnet_jax.weights import own_names, torch_file
from alexnet_jax.weights.layout import from_params, to_params
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_METADATA, _MEAN, _MEAN_SHAPE = "alexnet_jax", "alexnet_jax.mean", "alexnet_jax.mean_shape"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.dtype(jnp.bfloat16)}


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file starts with the length of a JSON header, and the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads arrays of the names that PyTorch models have.

    Raises:
      InputError: it is damaged, or does not fit a model.
    """
    data = path.read_bytes()
    try:
        arrays = {name: _array(tensor) for name, tensor in safetensors.deserialize(data)}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"is a damaged safetensors file ({error!s:.100}).") from error
    metadata = header.get("__metadata__") or {}
    if _METADATA not in metadata:
        return torch_file.to_model(arrays, options)
    config, classes = own_names.read_metadata(metadata[_METADATA])
    layout = dataclasses.replace(torch_file.TORCHVISION, model=config["model.name"], config=config)
    mean = _mean_image(metadata) if _MEAN in metadata else None
    return dataclasses.replace(to_params(arrays, layout, options), mean=mean, classes=classes)


def write_file(path: Path, model_file: ModelFile) -> None:
    """Writes a model that has torchvision's layers, for `torch.nn.Module.load_state_dict` too.

    Raises:
      InputError: it has other layers.
    """
    metadata = {"format": "pt", _METADATA: own_names.metadata_of(model_file)}
    if model_file.mean is not None:
        metadata[_MEAN] = base64.b64encode(model_file.mean.astype("<f4").tobytes()).decode()
        metadata[_MEAN_SHAPE] = json.dumps(model_file.mean.shape)
    arrays = from_params(model_file, torch_file.TORCHVISION)
    path.write_bytes(save(arrays, metadata))  # save_file makes a file that others cannot read


def _array(tensor: dict[str, Any]) -> np.ndarray:
    """Returns an array of the library's description; of another type, as bytes."""
    dtype = _DTYPES.get(tensor["dtype"], np.uint8)
    array = np.frombuffer(tensor["data"], dtype)
    return array.reshape(tensor["shape"]) if dtype is not np.uint8 else array


def _mean_image(metadata: dict[str, str]) -> np.ndarray:
    """Returns the mean image in the metadata.

    Raises:
      InputError: it is damaged.
    """
    try:
        mean = np.frombuffer(base64.b64decode(metadata[_MEAN], validate=True), "<f4")
        return own_names.mean_image(mean.reshape(json.loads(metadata[_MEAN_SHAPE])))
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"has a damaged mean image ({error!s:.100}).") from error
