"""Narrow AlexNets as other programs hold them: `caffe_numpy`'s, by the names of single arrays.

Arrays are asymmetric and random, in PyTorch's and Caffe's order: convolutions OIHW, dense kernels
(outputs, inputs) of CHW features.
"""

from collections.abc import Mapping
from typing import NamedTuple

import caffe_numpy
import numpy as np

Arrays = dict[str, np.ndarray]

CLASSES = 5


class Geometry(NamedTuple):
    """What differs between the models: input, padding of conv1, groups, LRN, widths."""

    size: int = 224
    padding: int = 2
    groups: int = 1
    lrn: bool = False
    widths: tuple[int, ...] = (8, 12, 16, 12, 8)

    def layers(self, classes: int = CLASSES) -> list[caffe_numpy.Layer]:
        """Returns the model's layers."""
        changes = {"conv1": {"pad": self.padding}}
        changes |= {name: {"group": self.groups} for name in ("conv2", "conv4", "conv5")}
        return [
            layer._replace(fields={**layer.fields, **changes.get(layer.name, {})})
            for layer in caffe_numpy.network(classes=classes, widths=self.widths)
            if self.lrn or layer.type != "LRN"
        ]


TORCHVISION = Geometry()
CAFFE = Geometry(227, padding=0, groups=2, lrn=True)


def make_arrays(geometry: Geometry = TORCHVISION, classes: int = CLASSES) -> Arrays:
    """Returns {"conv1.weight": ...}, a seed for each layer."""
    arrays = caffe_numpy.make_arrays(geometry.layers(classes), geometry.size)
    return {
        f"{layer}.{name}": array
        for layer, both in arrays.items()
        for name, array in zip(("weight", "bias"), both, strict=True)
    }


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
    layers = {name.partition(".")[0] for name in arrays}
    by_layer = {layer: (arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]) for layer in layers}
    return caffe_numpy.logits(geometry.layers(), by_layer, image)
