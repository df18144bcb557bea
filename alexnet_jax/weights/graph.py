"""Weight files that hold the operations of their model, such as those of Caffe and ONNX.

The model is the variant with the same kinds of layers in the same order and the fewest fields that
differ; those become fields of its layers in the config. So the model computes what the file
describes even where its strides, paddings or constants differ from those of the variant.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax import schema
from alexnet_jax.errors import InputError, did_you_mean
from alexnet_jax.models import MODEL_OPTIONS, VARIANTS
from alexnet_jax.models.layers import (
    LAYER_FIELDS,
    Activation,
    AdaptivePool,
    Conv,
    Dense,
    Dropout,
    Layer,
    LocalResponseNorm,
    ModelSpec,
    Pool,
    WeightLayer,
)
from alexnet_jax.weights.layout import Layout, spec_of, to_params
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

Arrays = Mapping[str, np.ndarray]

# Dropout does nothing in inference, and in these files the feature maps have the output size of
# adaptive pooling already.
_IDENTITIES = (Dropout, AdaptivePool)

_MAX_OPERATIONS = 1000  # that are compared with the models


class Operation(NamedTuple):
    """An operation of a file, or a layer of a model.

    Attributes:
      kind: of our layer that does it.
      name: in the file or the model.
      fields: of that layer, as far as the file says.
      arrays: {name in the file: array}: kernel and bias.
    """

    kind: type[Layer]
    name: str
    fields: Mapping[str, Any]
    arrays: Arrays = {}  # noqa: RUF012


def unsupported(what: str, model: str | None = None) -> InputError:
    """Returns the error for a network that is not a model of this package.

    Args:
      what: the unsupported part of it.
      model: name of the only model that it may be.
    """
    wanted = f"the model {model}" if model else "a model of this package"
    return InputError(f"is not {wanted}: it has {what}.")


class Graph:
    """The operations of a model, added in order.

    Attributes:
      input_size: height and width of its input images, in pixels.
      size: height and width of the feature maps so far.
      operations: so far.
    """

    def __init__(self, input_size: int):
        self.input_size = self.size = _checked("input_size", input_size)
        self.operations: list[Operation] = []

    def add(
        self, kind: type[Layer], name: str, arrays: Arrays | None = None, /, **fields: Any
    ) -> None:
        """Adds an operation that keeps the size of feature maps, or has none."""
        checked = {field: _checked(field, value, name) for field, value in fields.items()}
        self.operations.append(Operation(kind, name, checked, arrays or {}))

    def add_conv(
        self, name: str, arrays: Arrays, *, features: int, groups: int, end: int = 0, **window: Any
    ) -> None:
        """Adds a convolution.

        Args:
          name: in the file.
          arrays: its kernel and bias.
          features: number of outputs.
          groups: of channels.
          end: zeros after rows and columns, beyond those before them.
          **window: kernel_size, stride and padding.
        """
        self.add(Conv, name, arrays, features=features, groups=groups, **window)
        self._slide(partial(Conv, name, 1, **window), False, end)

    def add_pool(self, name: str, *, ceil_mode: bool, end: int = 0, **window: Any) -> None:
        """Adds pooling.

        Args:
          name: in the file.
          ceil_mode: whether a last window may extend past the right and bottom edge.
          end: pixels that are added after rows and columns.
          **window: its kind, window and stride.
        """
        self.add(Pool, name, **window)
        if end and window["kind"] == "average":
            raise unsupported(f"{name} with padding")
        self._slide(partial(Pool, name, **window), ceil_mode, end)

    def _slide(self, layer: Callable[..., Layer], ceil_mode: bool, end: int) -> None:
        """Sets the size of feature maps, and ceil_mode where it or `end` adds a last window."""

        def size_after(ceil_mode: bool, end: int = 0) -> int:
            return _size_after(layer(ceil_mode=ceil_mode), self.size + end)

        size, floor, ceil = size_after(ceil_mode, end), size_after(False), size_after(True)
        if size not in (floor, ceil):
            raise unsupported(f"{self.operations[-1].name} with a padding of {end} at the end")
        if floor != ceil:
            last = self.operations[-1]
            self.operations[-1] = last._replace(fields={**last.fields, "ceil_mode": size == ceil})
        self.size = size

    def add_lrn(self, name: str, size: int, alpha: float, beta: float, k: float) -> None:
        """Adds local response normalization, whose alpha multiplies the mean of the squares."""
        _checked("size", size, name)
        alpha, beta, k = (float(str(np.float32(x))) for x in (alpha, beta, k))  # as they were typed
        self.add(LocalResponseNorm, name, size=size, alpha=alpha / size, beta=beta, k=k, groups=1)


class Match(NamedTuple):
    """The model that a graph is.

    Attributes:
      model: name of the variant.
      config: what differs from it, as {dotted config key: value}.
      pairs: each layer, and the operation that corresponds to it.
    """

    model: str
    config: dict[str, Any]
    pairs: tuple[tuple[Operation, Operation], ...]


def find_model(graph: Graph, model: str | None = None) -> Match:
    """Returns the variant that has a graph's layers, with the fewest fields that differ.

    The graph may end early; see `ReadOptions.partial`.

    Args:
      graph: of a file.
      model: name of the only variant to consider.

    Raises:
      InputError: no variant has these layers.
    """
    if model and model not in VARIANTS:
        hint = did_you_mean(model, list(VARIANTS))
        raise InputError(f"cannot be read as {model!r}: there is no such model.{hint}")
    operations = _pools_first(graph.operations)
    kinds = [operation.kind for operation in operations]
    if kinds[-2:] == [Conv, Activation]:  # the pool that may come before this ReLU is missing
        operations, kinds = operations[:-1], kinds[:-1]
    found: list[tuple[tuple[int, int], Match]] = []
    for name in [model] if model else VARIANTS:
        layers = _layers(VARIANTS[name])
        if kinds and [layer.kind for layer in layers[: len(kinds)]] == kinds:
            pairs = tuple(zip(layers, operations, strict=False))
            config = {
                f"model.layers.{layer.name}.{field}": value
                for layer, operation, field, value in _differences(pairs)
                if layer.name and field != "features"  # which the shapes of arrays give
            }
            score = len(layers) - len(kinds), len(config)
            config |= _from_size(VARIANTS[name], graph)
            found.append((score, Match(name, config, pairs)))
    if not found:
        listed = " ".join(kind.__name__ for kind in kinds) or "none"
        raise unsupported(f"these layers, in order: {listed}", model)
    return min(found, key=lambda item: item[0])[1]


def to_model_file(match: Match, layout: Layout, options: ReadOptions, *notes: str) -> ModelFile:
    """Returns the model of a graph and its arrays.

    Args:
      match: its model.
      layout: of the arrays; its model, names and the config of its layers are filled in.
      options: how to read the file.
      *notes: the format's own.

    Raises:
      InputError: an array is missing, unknown or of another shape, or contradicts the graph.
    """
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, dict[str, str]] = {}
    for index, (layer, operation) in enumerate(match.pairs):
        # two operations may share an array, or their name
        own = {
            name if name not in arrays else f"{name} of operation {index + 1}": array
            for name, array in operation.arrays.items()
        }
        arrays |= own
        if issubclass(layer.kind, WeightLayer):
            names[layer.name] = dict(zip(("kernel", "bias"), own, strict=False))
    config = {**layout.config, **match.config}
    layout = dataclasses.replace(layout, model=match.model, names=names, config=config)
    changed = [f"{path.removeprefix('model.')} {value}" for path, value in match.config.items()]
    listed = [f"By its operations, it has {', '.join(changed)}."] if changed else []
    model_file = to_params(arrays, layout, options, *notes, *listed)
    spec = spec_of(model_file.config).with_num_classes(model_file.config["model.num_classes"])
    final = zip(_layers(spec), (operation for _, operation in match.pairs), strict=False)
    for layer, operation, field, value in _differences(final):
        raise InputError(
            f"is inconsistent: {operation.name} has {field} {value}, but its weights have "
            f"{layer.fields[field]}."
        )
    return model_file


def _layers(spec: ModelSpec) -> list[Operation]:
    """Returns the layers of a model that compute something in inference."""
    layers = (layer for layer in spec.layers if not isinstance(layer, _IDENTITIES))
    return _pools_first([Operation(type(layer), layer.name, vars(layer)) for layer in layers])


def _pools_first(operations: list[Operation]) -> list[Operation]:
    """Returns operations with each max pool before the ReLU it follows, as the two commute."""
    result = list(operations)
    for i in range(len(result) - 1):
        first, second = result[i : i + 2]
        if (first.kind, second.kind, second.fields.get("kind")) == (Activation, Pool, "max"):
            result[i : i + 2] = second, first
    return result


def _differences(
    pairs: Iterable[tuple[Operation, Operation]],
) -> Iterator[tuple[Operation, Operation, str, Any]]:
    """Yields each layer, its operation, and the name and value of a field that differs in it."""
    for layer, operation in pairs:
        for field, value in operation.fields.items():
            own = layer.fields[field]
            if own != value and not (
                isinstance(own, float) and math.isclose(own, value, rel_tol=1e-6)
            ):
                yield layer, operation, field, value


def _from_size(spec: ModelSpec, graph: Graph) -> dict[str, Any]:
    """Returns {config key: value} that follow from the sizes of images and feature maps."""
    config: dict[str, Any] = {}
    if spec.input_size != graph.input_size:
        config["model.input_size"] = graph.input_size
    whole = any(operation.kind is Dense for operation in graph.operations)
    for layer in spec.layers:
        if isinstance(layer, AdaptivePool) and layer.output != graph.size and whole:
            config[f"model.layers.{layer.name}.output"] = graph.size
        elif isinstance(layer, Dropout) and not layer.inverted:  # the file does not rescale
            config[f"model.layers.{layer.name}.inverted"] = True
    return config


def _size_after(layer: Layer, size: int) -> int:
    """Returns the height and width of a layer's output."""
    try:
        return layer.output_shape((size, size, 1))[0]
    except ValueError as error:
        raise unsupported(str(error).rstrip(".")) from error


def _checked(field: str, value: Any, name: str = "its input") -> Any:
    """Returns a value that a layer, or the model, can have."""
    try:
        return schema.check({**LAYER_FIELDS, **MODEL_OPTIONS}[field], value)
    except ValueError as error:
        raise InputError(f"has an invalid {field} of {name}: {error}") from error
