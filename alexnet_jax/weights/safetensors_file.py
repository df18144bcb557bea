"""Safetensors under torchvision's names.

In files that this package wrote, the metadata holds the config, the classes and the mean image.
"""

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

from alexnet_jax.errors import InputError
from alexnet_jax.weights import npz_file, own_names, torch_file
from alexnet_jax.weights.layout import Config, Layout, from_params
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_METADATA, _MEAN = "alexnet_jax", "alexnet_jax.mean"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.dtype(jnp.bfloat16)}


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file starts with the length of a JSON header, and the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads arrays under the names that PyTorch models have.

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
    if _MEAN in metadata:
        arrays[own_names.MEAN] = _mean_image(metadata[_MEAN])
    return own_names.to_model(arrays, metadata[_METADATA], options, layout_of=_layout)


def write_file(path: Path, model_file: ModelFile) -> None:
    """Writes a model that has torchvision's layers, also for `torch.nn.Module.load_state_dict`.

    Raises:
      InputError: it has other layers.
    """
    metadata = {"format": "pt", _METADATA: own_names.metadata_of(model_file)}
    if model_file.mean is not None:
        file = io.BytesIO()
        np.save(file, model_file.mean.transpose(2, 0, 1))
        metadata[_MEAN] = base64.b64encode(file.getvalue()).decode()
    arrays = from_params(model_file, torch_file.TORCHVISION)
    path.write_bytes(save(arrays, metadata))  # save_file would deny other users to read it


def _array(tensor: dict[str, Any]) -> np.ndarray:
    """Returns the array that the library describes; bytes if its type is not floating-point."""
    dtype = _DTYPES.get(tensor["dtype"], np.uint8)
    array = np.frombuffer(tensor["data"], dtype)
    return array.reshape(tensor["shape"]) if dtype is not np.uint8 else array


def _layout(config: Config) -> Layout:
    """Returns torchvision's names for the arrays of a model."""
    return dataclasses.replace(torch_file.TORCHVISION, model=config["model.name"], config=config)


def _mean_image(text: str) -> np.ndarray:
    """Returns the mean image, which is an .npy file in Base64."""
    try:
        return npz_file.read_npy(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise InputError(f"has a damaged mean image ({error!s:.100}).") from error
