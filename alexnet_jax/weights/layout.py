"""Layouts of weight files: names, axes and channel order, to and from this package's parameters.

A format reads named arrays from its container and has a `Layout` for each kind of file;
`to_params` and `from_params` do the rest.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from alexnet_jax import schema
from alexnet_jax.errors import InputError
from alexnet_jax.models import MODEL_OPTIONS, ModelSpec, create_spec
from alexnet_jax.models.initializers import Initializer
from alexnet_jax.models.layers import (
    NUM_CLASSES,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    LocallyConnected,
    Shape,
    WeightLayer,
)
from alexnet_jax.weights.model_file import ModelFile, Params, ReadOptions

Arrays = Mapping[str, np.ndarray]
Config = Mapping[str, Any]  # {dotted config key: value}
Names = Mapping[str, Mapping[str, str]]  # {layer: {parameter: name in the file}}

# Preprocessing that more than one format has; colors are RGB in 0..255.
TORCHVISION_PIXELS: Config = {
    "data.image_size": 256,
    "data.resize": "torchvision",
    "augment.mean": "given",
    "augment.channel_mean": (123.675, 116.28, 103.53),
    "augment.channel_std": (58.395, 57.12, 57.375),
}
CAFFE_PIXELS: Config = {
    "data.image_size": 256,
    "data.resize": "warp",
    "augment.mean": "given",
    "augment.channel_mean": (122.6789143, 116.6687676, 104.0069879),
}

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_LAYERS = "model.layers."  # of config keys
_GROUPS = (1, 2)  # counts that can be inferred from shapes
_OUR_AXES = {Conv: "HWIO", Dense: "IO", LocallyConnected: "hwiO"}
_STATISTICS = ("mean", "var")  # running, of batch norms
_LISTED = 30  # errors at most


def pairs(prefixes: Mapping[str, str], kernel: str, bias: str) -> Names:
    """Returns names made of a prefix per layer, such as {"conv1": "features.0."}, and suffixes."""
    return {
        layer: {"kernel": prefix + kernel, "bias": prefix + bias}
        for layer, prefix in prefixes.items()
    }


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kind of weight file names and arranges the parameters of a model.

    Attributes:
      name: for messages.
      model: name of the model in models/variants.py. Features, groups and the number of classes are
        those of the file.
      names: of the arrays, by layer and parameter; see `pairs`.
      config: the preprocessing, and fields of layers that differ from the model's.
      conv_axes: order of a convolution's axes: height, width, inputs, outputs.
      dense_axes: order of a dense kernel's axes: inputs, outputs.
      flattening: order of the inputs of the first dense layer: channels, height, width.
      channel_order: "rgb" or "bgr": of the inputs of the first layer.
    """

    name: str
    model: str
    names: Names
    config: Config = dataclasses.field(default_factory=dict)
    conv_axes: str = "OIHW"
    dense_axes: str = "OI"
    flattening: str = "CHW"
    channel_order: str = "rgb"

    def axes(self, layer: Layer) -> str:
        """Returns the order of a kernel's axes in the file."""
        return {Conv: self.conv_axes, Dense: self.dense_axes}.get(type(layer), "hwiO")

    def describe(self) -> str:
        """Returns a sentence on the layout."""
        return (
            f"Layout {self.name}: convolutions {self.conv_axes}, dense kernels {self.dense_axes} "
            f"of {self.flattening} features, input channels {self.channel_order.upper()}."
        )


def choose(layouts: Sequence[Layout], names: Iterable[str]) -> Layout:
    """Returns the layout that has most of the names; of several, the first.

    Raises:
      InputError: none has any of them.
    """
    given = set(names)

    def num_known(layout: Layout) -> int:
        return sum(name in given for names in layout.names.values() for name in names.values())

    best = max(layouts, key=num_known)
    if not num_known(best):
        found = ", ".join(sorted(given)[:5]) or "nothing"
        listed = ", ".join(layout.name for layout in layouts)
        raise InputError(f"has no arrays of a known layout ({listed}); found: {found[:200]}.")
    return best


def own_layout(config: Config) -> Layout:
    """Returns the layout of this package's own arrays: conv1/kernel, HWIO, HWC.

    Running statistics are named `batch_stats/conv1_norm/mean`.

    Args:
      config: of the model.
    """
    names: dict[str, dict[str, str]] = {}
    for row in _rows(config):
        names.setdefault(row.layer.name, {})[row.parameter] = row.own_name
    return Layout("alexnet_jax", config["model.name"], names, config, "HWIO", "IO", "HWC")


def to_params(arrays: Arrays, layout: Layout, options: ReadOptions, *notes: str) -> ModelFile:
    """Returns the model that the named arrays of a layout describe.

    The numbers of features, classes and groups (1 or 2) are inferred from the shapes. An array may
    have leading axes of length 1.

    Args:
      arrays: {name: array} of floating-point numbers; copied.
      layout: of the arrays.
      options: its model and channel order override those of the layout; `partial` accepts
        missing layers.
      *notes: those of the format, which come first.

    Raises:
      InputError: arrays are missing, unknown, or of another shape or type; all are listed.
    """
    layout = dataclasses.replace(
        layout,
        model=options.model or layout.model,
        channel_order=options.channel_order or layout.channel_order,
    )
    config, rows, errors = _fit(arrays, layout, options.partial)
    if errors:
        only_missing = all(error.startswith("missing") for error in errors)
        advice = "; weights.partial=True accepts a file without some layers"
        hint = advice if only_missing and not options.partial else ""
        raise InputError("\n  ".join([f"does not fit the model {layout.model}{hint}:", *errors]))
    if not rows:
        raise InputError(f"has no layer of the model {layout.model}.")
    held = {row.layer.name for row in rows}
    fresh = dict.fromkeys(row.layer.name for row in _rows(config) if row.layer.name not in held)
    notes = (*notes, layout.describe(), _describe(config, layout))
    model_file = ModelFile(config, {}, fresh=tuple(fresh), notes=notes)
    for row in rows:
        array = arrays[layout.names[row.layer.name][row.parameter]]
        layer = row.collection_of(model_file).setdefault(row.layer.name, {})
        layer[row.parameter] = _to_ours(array, row, layout)
    return model_file


def from_params(model_file: ModelFile, layout: Layout) -> dict[str, np.ndarray]:
    """Returns the named arrays of a layout that hold a model's parameters.

    Raises:
      InputError: the layers of the model are not those of the layout's model.
    """
    spec = spec_of(model_file.config)
    if _operations(spec) != _operations(spec_of(_base_config(layout))):
        raise InputError(
            f"The layout {layout.name} can only hold the layers of {layout.model}, and this model "
            "has others. The format npz holds any model."
        )
    return {
        layout.names[row.layer.name][row.parameter]: _to_theirs(
            row.collection_of(model_file)[row.layer.name][row.parameter], row, layout
        )
        for row in _rows(model_file.config)
    }


def mean_image(array: np.ndarray, axes: str, channel_order: str = "rgb") -> np.ndarray:
    """Returns a mean image as float32[size, size, channels], RGB, a copy.

    Args:
      array: may have leading axes of length 1.
      axes: their order, "HWC" or "CHW".
      channel_order: "rgb" or "bgr".

    Raises:
      InputError: it is something else.
    """
    image = _squeezed(array, 3)
    if image.ndim == 3 and axes == "CHW":
        image = image.transpose(1, 2, 0)
    square = image.ndim == 3 and image.shape[0] == image.shape[1] and image.shape[2] in (1, 3)
    if not square or image.dtype.name not in _FLOATS:
        found = f"{array.dtype}{list(array.shape)}"
        raise InputError(f"has a mean image {found}, expected a square one of 1 or 3 channels.")
    return _copied(image[..., ::-1] if channel_order == "bgr" else image)


def num_changes(arrays: Arrays, layout: Layout, partial: bool = False) -> float:
    """Returns how many fields of a layout's model must change to fit arrays; inf: it cannot fit.

    Args:
      arrays: by name.
      layout: of the arrays.
      partial: whether layers may be missing.
    """
    try:
        config, _, errors = _fit(arrays, layout, partial)
        return math.inf if errors else len(_changes(config, layout))
    except InputError:  # the layers do not fit together
        return math.inf


def spec_of(config: Config) -> ModelSpec:
    """Returns the model of a config.

    Raises:
      InputError: there is no such model, or a value is wrong.
    """
    start = "model."
    given = {path[len(start) :]: value for path, value in config.items() if path.startswith(start)}
    if unknown := [path for path in given if schema.find(MODEL_OPTIONS, path) is None]:
        raise InputError(f"has an invalid config: there is no key {start}{unknown[0]:.100}.")
    try:
        return create_spec(**traverse_util.unflatten_dict(given, sep="."))
    except ValueError as error:
        raise InputError(f"has an invalid config: {' '.join(map(str, error.args))}") from error


class _Row(NamedTuple):
    """A parameter or running statistic: layer, input shape of the layer, name and shape."""

    layer: Layer
    inputs: Shape
    parameter: str
    shape: Shape

    @property
    def own_name(self) -> str:
        """Its name in files of this package."""
        prefix = "batch_stats/" if self.parameter in _STATISTICS else ""
        return f"{prefix}{self.layer.name}/{self.parameter}"

    def collection_of(self, model_file: ModelFile) -> Params:
        """Returns the part of a model that it belongs to."""
        statistic = self.parameter in _STATISTICS
        return model_file.batch_stats if statistic else model_file.params

    @property
    def axes(self) -> str:
        """Our order of the axes, "" unless it is a kernel."""
        return _OUR_AXES.get(type(self.layer), "") if self.parameter == "kernel" else ""

    @property
    def flattens(self) -> bool:
        """Whether it is a dense kernel whose inputs are flattened feature maps."""
        return bool(self.axes) and isinstance(self.layer, Dense) and len(self.inputs) == 3

    @property
    def window(self) -> Shape:
        """Height and width of the flattened feature maps."""
        size = self.layer.input_spatial_size if isinstance(self.layer, Dense) else 0
        return (size, size) if size else self.inputs[:2]


def _rows(config: Config) -> list[_Row]:
    """Returns the parameters of a model in order."""
    try:
        return [
            _Row(layer, inputs, parameter, shape)
            for layer, inputs, _ in spec_of(config).trace(config.get("model.num_classes") or 1000)
            for parameter, shape in _shapes(layer, inputs).items()
        ]
    except ValueError as error:
        raise InputError(f"has layers that do not fit together: {error}") from error


def _shapes(layer: Layer, inputs: Shape) -> dict[str, Shape]:
    """Returns the shapes of a layer's parameters and running statistics."""
    statistics = dict.fromkeys(_STATISTICS, inputs[-1:]) if isinstance(layer, BatchNorm) else {}
    return {**layer.parameters(inputs), **statistics}


def _operations(spec: ModelSpec) -> list[Layer]:
    """Returns the layers without the fields that may differ between models of one layout."""

    def common(layer: Layer) -> Layer:
        if not isinstance(layer, WeightLayer):
            return layer
        layer = dataclasses.replace(layer, features=0, initializer=Initializer())
        return dataclasses.replace(layer, groups=1) if isinstance(layer, Conv) else layer

    inference = (x for x in spec.layers if not (isinstance(x, Dropout) and x.inverted))
    return [common(layer) for layer in inference]


def _base_config(layout: Layout) -> dict[str, Any]:
    return {**layout.config, "model.name": layout.model}


def _fit(
    arrays: Arrays, layout: Layout, partial: bool
) -> tuple[dict[str, Any], list[_Row], list[str]]:
    """Returns a layout's config by the shapes, the parameters it needs, and how arrays differ.

    If `partial`, layers of which no array is present are not needed.
    """
    config = _config(arrays, layout)
    absent = arrays.keys().isdisjoint
    rows = [
        row
        for row in _rows(config)
        if not (partial and absent(layout.names.get(row.layer.name, {}).values()))
    ]
    return config, rows, _differences(arrays, layout, rows)


def _config(arrays: Arrays, layout: Layout) -> dict[str, Any]:
    """Returns the layout's config with the features, groups and classes that the shapes give."""
    config = _base_config(layout)
    spec = spec_of(config)
    if config.get("model.num_classes") is None:
        config["model.num_classes"] = 1000
    previous = spec.channels
    for layer in spec.of_kind(WeightLayer):
        lengths = _kernel_lengths(arrays, layout, layer)
        features = lengths.get("O", layer.features)
        if layer.features == NUM_CLASSES:
            config["model.num_classes"] = features or config["model.num_classes"]
        elif features != layer.features:
            config[f"{_LAYERS}{layer.name}.features"] = features
        groups, rest = divmod(previous, lengths.get("I") or previous)
        if isinstance(layer, Conv) and groups in _GROUPS and not rest and groups != layer.groups:
            config[f"{_LAYERS}{layer.name}.groups"] = groups
        previous = features
    return config


def _changes(config: Config, layout: Layout) -> list[str]:
    """Returns the fields of layers that differ from the layout's, such as "conv1.features 48"."""
    return [
        f"{path.removeprefix(_LAYERS)} {value}"
        for path, value in config.items()
        if path.startswith(_LAYERS) and layout.config.get(path) != value
    ]


def _describe(config: Config, layout: Layout) -> str:
    """Returns a sentence or two on the model."""
    changes = ", ".join(_changes(config, layout))
    by_shapes = f" and, by the shapes, {changes}" if changes else ""
    grouped = [layer.name for layer in spec_of(config).of_kind(Conv) if layer.groups > 1]
    listed = f" Grouped convolutions, in the order of the file: {', '.join(grouped)}."
    outputs = f"{config['model.num_classes']:,} outputs"
    return f"Model {layout.model} with {outputs}{by_shapes}.{listed if grouped else ''}"


def _kernel_lengths(arrays: Arrays, layout: Layout, layer: WeightLayer) -> dict[str, int]:
    """Returns the length of each axis of a layer's kernel; without a kernel, that of its bias."""
    names, axes = layout.names.get(layer.name, {}), layout.axes(layer)
    for name, letters in ((names.get("kernel", ""), axes), (names.get("bias", ""), "O")):
        if name in arrays:
            shape = _squeezed(arrays[name], len(letters)).shape
            return dict(zip(letters, shape, strict=True)) if len(shape) == len(letters) else {}
    return {}


def _squeezed(array: np.ndarray, ndim: int) -> np.ndarray:
    """Returns an array without leading axes of length 1, down to `ndim` axes."""
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array


def _differences(arrays: Arrays, layout: Layout, rows: list[_Row]) -> list[str]:
    """Returns a line for each array that is missing, unknown, or of another shape or type."""
    missing, different, known = [], [], set()
    for row in rows:
        name = layout.names.get(row.layer.name, {}).get(row.parameter, row.own_name)
        axes = layout.axes(row.layer)
        shape = tuple(row.shape[row.axes.index(axis)] for axis in axes) if row.axes else row.shape
        known.add(name)
        if name not in arrays:
            missing.append(f"missing: {name} {list(shape)}")
            continue
        found = arrays[name]
        if _squeezed(found, len(shape)).shape != shape:
            different.append(f"different: {name} is {list(found.shape)}, expected {list(shape)}")
        elif found.dtype.name not in _FLOATS:
            different.append(f"different: {name} is {found.dtype.name}, expected float32")
    extra = [
        f"extra: {x:.100} {list(array.shape)}" for x, array in arrays.items() if x not in known
    ]
    lines = [*missing, *extra, *different]
    return lines[:_LISTED] + [f"and {len(lines) - _LISTED} more"] * (len(lines) > _LISTED)


def _to_ours(array: np.ndarray, row: _Row, layout: Layout) -> np.ndarray:
    """Returns a parameter as our model takes it, a copy."""
    array = _squeezed(array, len(row.shape))
    if row.axes:
        array = array.transpose([layout.axes(row.layer).index(axis) for axis in row.axes])
    if row.flattens and layout.flattening == "CHW":
        array = array.reshape(-1, *row.window, row.shape[1]).transpose(1, 2, 0, 3)
    if _is_reversed(row, layout):
        array = array[:, :, ::-1]
    return _copied(array).reshape(row.shape)


def _to_theirs(array: np.ndarray, row: _Row, layout: Layout) -> np.ndarray:
    """Returns a parameter as the file holds it; the inverse of `_to_ours`."""
    if _is_reversed(row, layout):
        array = array[:, :, ::-1]
    if row.flattens and layout.flattening == "CHW":
        maps = array.reshape(*row.window, -1, row.shape[1])
        array = maps.transpose(2, 0, 1, 3).reshape(row.shape)
    if row.axes:
        array = array.transpose([row.axes.index(axis) for axis in layout.axes(row.layer)])
    return _copied(array)


def _copied(array: np.ndarray) -> np.ndarray:
    """Returns a float32 copy, in blocks that fit into the cache: 7 times as fast for fc6."""
    copy = np.empty(array.shape, np.float32)
    with np.errstate(all="ignore"):  # overflow gives infinity
        for start in range(0, array.shape[-1], 64):
            copy[..., start : start + 64] = array[..., start : start + 64]
    return copy


def _is_reversed(row: _Row, layout: Layout) -> bool:
    """Returns whether a parameter is the kernel of the first layer, for BGR images."""
    first = len(row.inputs) == 3 and row.inputs[2] == 3 and isinstance(row.layer, Conv)
    return layout.channel_order == "bgr" and bool(row.axes) and first
