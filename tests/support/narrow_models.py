"""Narrow AlexNets as other programs hold them, and their logits by numpy only.

Arrays are asymmetric and random, in PyTorch's and Caffe's order: convolutions OIHW, dense kernels
(outputs, inputs) of CHW features.
"""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Arrays = dict[str, np.ndarray]

DENSE = ("fc6", "fc7", "fc8")
CLASSES = 5


class Geometry(NamedTuple):
    """What differs between the models: input, padding of conv1, groups, LRN, widths."""

    size: int = 224
    padding: int = 2
    groups: int = 1
    lrn: bool = False
    widths: tuple[int, ...] = (8, 12, 16, 12, 8)


TORCHVISION = Geometry()
CAFFE = Geometry(227, padding=0, groups=2, lrn=True)


def make_arrays(geometry: Geometry = TORCHVISION, classes: int = CLASSES) -> Arrays:
    """Returns {"conv1.weight": ...}, a seed for each."""
    arrays, inputs = {}, 3
    for index, (outputs, size) in enumerate(zip(geometry.widths, (11, 5, 3, 3, 3), strict=True), 1):
        groups = geometry.groups if index in (2, 4, 5) else 1
        arrays |= _layer(f"conv{index}", (outputs, inputs // groups, size, size))
        inputs = outputs
    inputs *= 36
    for name, outputs in zip(DENSE, (20, 24, classes), strict=True):
        arrays |= _layer(name, (outputs, inputs))
        inputs = outputs
    return arrays


def _layer(name: str, shape: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kernel = rng.normal(0.02, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
    bias = rng.normal(0.1, 0.1, shape[0])
    return {f"{name}.weight": kernel.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}


def renamed(arrays: Arrays, prefixes: Mapping[str, str]) -> Arrays:
    """Returns arrays with "conv1." replaced by prefixes["conv1"]."""
    split = ((name.partition("."), array) for name, array in arrays.items())
    return {f"{prefixes[layer]}{rest}": array for (layer, _, rest), array in split}


def torchvision_arrays(geometry: Geometry = TORCHVISION, classes: int = CLASSES) -> Arrays:
    """Returns arrays by torchvision's names."""
    return renamed(make_arrays(geometry, classes), torchvision_prefixes())


def torchvision_prefixes(
    convolutions: tuple[int, ...] = (0, 3, 6, 8, 10), dense: tuple[int, ...] = (1, 4, 6)
) -> dict[str, str]:
    """Returns the prefix of each layer, of a model of two Sequentials."""
    found = {f"conv{i}": f"features.{at}." for i, at in enumerate(convolutions, 1)}
    return found | {f"fc{i}": f"classifier.{at}." for i, at in enumerate(dense, 6)}


def logits(arrays: Arrays, image: np.ndarray, geometry: Geometry = TORCHVISION) -> np.ndarray:
    """Returns the logits of float[channels, size, size], in the channel order of the arrays."""
    x, groups = image.astype(np.float64), geometry.groups
    x = np.maximum(_conv(x, arrays, "conv1", 4, geometry.padding, 1), 0)
    x = _pool(_lrn(x) if geometry.lrn else x)
    x = np.maximum(_conv(x, arrays, "conv2", 1, 2, groups), 0)
    x = _pool(_lrn(x) if geometry.lrn else x)
    x = np.maximum(_conv(x, arrays, "conv3", 1, 1, 1), 0)
    x = np.maximum(_conv(x, arrays, "conv4", 1, 1, groups), 0)
    x = _pool(np.maximum(_conv(x, arrays, "conv5", 1, 1, groups), 0)).reshape(-1)
    for name in DENSE:
        x = arrays[f"{name}.weight"] @ x + arrays[f"{name}.bias"]
        x = x if name == "fc8" else np.maximum(x, 0)
    return x


def _conv(
    x: np.ndarray, arrays: Arrays, name: str, stride: int, padding: int, groups: int
) -> np.ndarray:
    kernel, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    halves = zip(np.split(windows, groups), np.split(kernel, groups), strict=True)
    parts = [np.einsum("iyxhw,oihw->oyx", part, half, optimize=True) for part, half in halves]
    return np.concatenate(parts) + bias[:, None, None]


def _pool(x: np.ndarray) -> np.ndarray:
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-2, -1))


def _lrn(x: np.ndarray) -> np.ndarray:
    squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
    sums = sliding_window_view(squares, 5, axis=0).sum(-1)
    return x / (1 + 1e-4 / 5 * sums) ** 0.75
