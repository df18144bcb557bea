"""Weight files that hold the operations of their model, as Caffe's and ONNX's do.

The model is the variant with the same kinds of layers in the same order and the fewest fields that
differ; those become fields of its layers in the config. So a file computes what its own program
computes, wherever its strides, paddings or constants differ from those of the variant.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
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

# Dropout computes nothing in inference, and the files' feature maps have the size of the output of
# adaptive pooling already.
_IDENTITIES = (Dropout, AdaptivePool)

_MAX_OPERATIONS = 1000  # that are compared with the models


class Operation(NamedTuple):
    """An operation of a file.

    Attributes:
      kind: of our layer that does it.
      name: in the file, for messages.
      fields: of that layer, as far as the file says.
      arrays: {name in the file: array}: kernel and bias.
    """

    kind: type[Layer]
    name: str
    fields: dict[str, Any]
    arrays: Arrays


def unsupported(what: str, model: str | None = None) -> InputError:
    """Returns the error for a network that is something else than the models of this package.

    Args:
      what: it has.
      model: the name of the only one that it may be.
    """
    wanted = f"the model {model}" if model else "a model of this package"
    return InputError(f"is not {wanted}: it has {what:.500}.")


@dataclasses.dataclass
class Graph:
    """The operations of a model, added in order.

    Attributes:
      input_size: height and width of its input images, in pixels.
      size: height and width of the feature maps so far.
      operations: so far.
    """

    input_size: int
    size: int = dataclasses.field(init=False)
    operations: list[Operation] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.input_size = self.size = _checked("input_size", self.input_size)

    def add(
        self, kind: type[Layer], name: str, arrays: Arrays | None = None, /, **fields: Any
    ) -> None:
        """Adds an operation that keeps the size of feature maps, or has none."""
        checked = {field: _checked(field, value, name) for field, value in fields.items()}
        if len(self.operations) == _MAX_OPERATIONS:
            raise unsupported(f"more than {_MAX_OPERATIONS:,} layers")
        self.operations.append(Operation(kind, name, checked, arrays or {}))

    def add_conv(self, name: str, arrays: Arrays, *, end: int | None = None, **fields: Any) -> None:
        """Adds a convolution.

        Args:
          name: in the file.
          arrays: its kernel and bias.
          end: zeros after rows and columns; None: as many as before them.
          **fields: of `Conv`.
        """
        self.add(Conv, name, arrays, **fields)
        fields = self.operations[-1].fields
        padding, geometry = fields["padding"], (fields["kernel_size"], fields["stride"])
        end = padding if end is None else end
        whole = Conv(name, 1, *geometry, padding, ceil_mode=True).pads(self.size)[1]
        if end not in (padding, whole):
            raise unsupported(f"{name} with a padding of {end} at the end")
        if whole != padding:
            fields["ceil_mode"] = end == whole
        self.size = _size_after(Conv(name, 1, *geometry), self.size + padding + end)

    def add_pool(
        self, name: str, kind: str, *, window: int, stride: int, ceil_mode: bool, end: int = 0
    ) -> None:
        """Adds pooling.

        Args:
          name: in the file.
          kind: "max" or "average".
          window: height and width of a window.
          stride: rows and columns between neighboring windows.
          ceil_mode: whether a last window may extend past the right and bottom edge.
          end: pixels that are added after rows and columns.
        """
        self.add(Pool, name, kind=kind, window=window, stride=stride)
        whole, clipped = (Pool(name, kind, window, stride, mode) for mode in (False, True))
        size = _size_after(clipped if ceil_mode else whole, self.size + end)
        sizes = [_size_after(pool, self.size) for pool in (whole, clipped)]
        if size not in sizes or (end and kind == "average"):
            raise unsupported(f"{name} with a padding of {end} at the end")
        if sizes[0] != sizes[1]:
            self.operations[-1].fields["ceil_mode"] = size == sizes[1]
        self.size = size

    def add_lrn(self, name: str, size: int, alpha: float, beta: float, k: float) -> None:
        """Adds local response normalization, whose alpha is a coefficient of the mean."""
        _checked("size", size, name)
        alpha, beta, k = (float(str(np.float32(x))) for x in (alpha, beta, k))  # as they were typed
        self.add(LocalResponseNorm, name, size=size, alpha=alpha / size, beta=beta, k=k, groups=1)


class Match(NamedTuple):
    """What a graph is among the models.

    Attributes:
      model: name of the variant.
      config: what differs from it, as {dotted config key: value}.
      pairs: each operation after the layer that does it.
    """

    model: str
    config: dict[str, Any]
    pairs: tuple[tuple[Layer, Operation], ...]


def find_model(graph: Graph, model: str | None = None) -> Match:
    """Returns the variant that has a graph's layers, in which fewest fields differ.

    A graph of the first layers only is one that lacks weights; see `ReadOptions.partial`.

    Args:
      graph: of a file.
      model: name of the only variant to consider.

    Raises:
      InputError: no variant has these layers.
    """
    if model and model not in VARIANTS:
        hint = did_you_mean(model, list(VARIANTS))
        raise InputError(f"cannot be the model {model!r}, which does not exist.{hint}")
    operations = _pools_first(graph.operations)
    kinds = [operation.kind for operation in operations]
    if kinds[-2:] == [Conv, Activation]:  # the pool that may come before this ReLU is missing
        operations, kinds = operations[:-1], kinds[:-1]
    found: list[tuple[tuple[int, int], Match]] = []
    for name in [model] if model else VARIANTS:
        spec = VARIANTS[name]
        layers = _pools_first([x for x in spec.layers if not isinstance(x, _IDENTITIES)])
        if kinds and [type(layer) for layer in layers[: len(kinds)]] == kinds:
            pairs = tuple(zip(layers, operations, strict=False))
            config = _differences(pairs)
            score = len(layers) - len(kinds), len(config)
            found.append((score, Match(name, config | _from_size(spec, graph), pairs)))
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
        if isinstance(layer, WeightLayer):
            names[layer.name] = dict(zip(("kernel", "bias"), own, strict=False))
    config = {**layout.config, **match.config}
    layout = dataclasses.replace(layout, model=match.model, names=names, config=config)
    changed = [f"{path.removeprefix('model.')} {value}" for path, value in match.config.items()]
    listed = [f"By its operations, it has {', '.join(changed)}."] if changed else []
    model_file = to_params(arrays, layout, options, *notes, *listed)
    _check_fields(model_file, match)
    return model_file


def _check_fields(model_file: ModelFile, match: Match) -> None:
    """Raises InputError if shapes of arrays say something else than their operations."""
    spec = spec_of(model_file.config).with_num_classes(model_file.config["model.num_classes"])
    final = {layer.name: layer for layer in spec.layers if layer.name}
    for layer, operation in match.pairs:
        for field, value in operation.fields.items():
            found = getattr(final[layer.name], field) if layer.name else value
            if not _equal(found, value):
                raise InputError(
                    f"contradicts itself: {operation.name} has {field} {value}, but its weights "
                    f"have {found}."
                )


def _pools_first(items: Sequence[Any]) -> list[Any]:
    """Returns layers or operations with each max pool before the ReLU it follows: both commute."""
    items = list(items)
    for i in range(len(items) - 1):
        kinds = [x.kind if isinstance(x, Operation) else type(x) for x in items[i : i + 2]]
        pooling = items[i + 1]
        fields = pooling.fields if isinstance(pooling, Operation) else vars(pooling)
        if kinds == [Activation, Pool] and fields["kind"] == "max":
            items[i : i + 2] = items[i + 1], items[i]
    return items


def _differences(pairs: Sequence[tuple[Layer, Operation]]) -> dict[str, Any]:
    """Returns {config key: value} of the fields that the shapes of arrays do not give."""
    return {
        f"model.layers.{layer.name}.{field}": value
        for layer, operation in pairs
        for field, value in operation.fields.items()
        if layer.name and field != "features" and not _equal(getattr(layer, field), value)
    }


def _from_size(spec: ModelSpec, graph: Graph) -> dict[str, Any]:
    """Returns {config key: value} of what follows from the sizes of images and feature maps."""
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


def _equal(ours: Any, theirs: Any) -> bool:
    close = isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-6)
    return bool(close or ours == theirs)


def _checked(field: str, value: Any, name: str = "its input") -> Any:
    """Returns a value that a layer, or the model, can have."""
    try:
        return schema.check({**LAYER_FIELDS, **MODEL_OPTIONS}[field], value)
    except ValueError as error:
        raise InputError(f"gives {name} a wrong {field}: {error}") from error
