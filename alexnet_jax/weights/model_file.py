"""The content of a weight file as this package represents it, and the options for reading it."""

import dataclasses
import re
from typing import Any

import numpy as np

from alexnet_jax.data.classes import ClassTable

Params = dict[str, dict[str, np.ndarray]]

# Config keys that turn an image into the input of a model, and all those that belong to a model.
PREPROCESSING = re.compile(
    r"data\.(image_size|channels|resize)|augment\.(mean|channel_mean|scale|channel_std)"
)
MODEL = re.compile(rf"model\..*|augment\.(?!draw_first_batch).*|{PREPROCESSING.pattern}")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How to read a weight file; None: as the file or its format says.

    Attributes:
      file: the file to import; used by the job only.
      model: name of the model, instead of what names and shapes say.
      classes: file of a class table, see `data.classes.read`; None: what the file holds, else
        ImageNet's for 1,000 outputs, else "class 0" and so on.
      mean: Caffe's mean image, a .binaryproto file.
      channel_order: "rgb" or "bgr", of the first layer's inputs.
      sha256: of the file; another file is refused.
      partial: whether to accept a file that lacks layers, such as one of convolutions only.
    """

    file: str | None = None
    model: str | None = None
    classes: str | None = None
    mean: str | None = None
    channel_order: str | None = None
    sha256: str | None = None
    partial: bool = False


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A model as a weight file describes it.

    Attributes:
      config: {dotted config key: value} that make it work: the model and its preprocessing.
      params: parameters for `AlexNet`: {layer: {"kernel": ..., "bias": ...}}; convolutions
        HWIO, dense kernels (inputs, outputs) of HWC features, RGB, float32.
      batch_stats: running statistics of batch norms.
      mean: mean image, float32[image_size, image_size, channels] in 0..255, RGB.
      classes: of the outputs.
      fresh: layers that the file lacks.
      notes: a sentence on each detail that was inferred: format, layout, channel order, groups.
    """

    config: dict[str, Any]
    params: Params
    batch_stats: Params = dataclasses.field(default_factory=dict)
    mean: np.ndarray | None = None
    classes: ClassTable | None = None
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
