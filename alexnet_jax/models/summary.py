"""The layer table of a net by arithmetic alone: shapes, weights, biases, multiply-adds."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table

from alexnet_jax.models import layers

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the layer table.

    Attributes:
      name: the layer.
      output: its output for one picture, (height, width, channels) or (features,).
      weights, biases: numbers of trained values.
      macs: multiply-adds of convolutions and dense layers for one picture.
      receptive_field: pixels of the picture, a side, that one output sees; None: all of it.
    """

    name: str
    output: Shape
    weights: int = 0
    biases: int = 0
    macs: int = 0
    receptive_field: int | None = None

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


class TooSmallError(ValueError):
    """The picture vanishes on its way through the net."""


def layer_table(
    spec: layers.ModelSpec, num_classes: int, input_size: int | None = None
) -> list[Row]:
    """Returns a row for each layer that has parameters or changes the shape, in order.

    Args:
      spec: the net.
      num_classes: outputs of the last layer.
      input_size: height and width of the picture in pixels; None: the net's own.

    Raises:
      TooSmallError: a layer's window is larger than what reaches it.
      ValueError: a layer's groups do not divide its inputs or features.
    """
    size = spec.input_size if input_size is None else input_size
    shape: Shape = (size, size, spec.channels)
    rows: list[Row] = []
    field, jump = 1, 1
    for layer in spec.layers:
        window, stride = _window_of(layer)
        field, jump = field + (window - 1) * jump, jump * stride
        row = _row(layer, shape, num_classes)
        if row is None:
            continue
        if len(row.output) == 3 and not isinstance(layer, layers.AdaptivePool):
            row = dataclasses.replace(row, receptive_field=field)
        shape = row.output
        rows.append(row)
    return rows


def smallest_input(spec: layers.ModelSpec) -> int:
    """Returns the least height and width of a picture, in pixels, that passes through a net."""
    for size in itertools.count(1):
        with contextlib.suppress(TooSmallError):
            layer_table(spec, 2, size)
            return size
    raise AssertionError("every net takes some picture")


def _row(layer: layers.Layer, shape: Shape, num_classes: int) -> Row | None:
    match layer:
        case layers.Conv():
            return _conv(layer, shape)
        case layers.LocallyConnected():
            weights = layer.size**2 * math.prod(shape) * layer.features
            output = (*shape[:2], layer.features)
            return Row(layer.name, output, weights, math.prod(output), weights)
        case layers.Dense():
            return _dense(layer, shape, num_classes)
        case layers.BatchNorm():
            return Row(layer.name, shape, shape[-1], shape[-1])
        case layers.Pool():
            return Row(layer.name, (*_pooled(layer, shape), shape[-1]))
        case layers.LocalResponseNorm() if shape[-1] % layer.groups:
            raise ValueError(
                f"the {shape[-1]} maps that reach {layer.name} do not divide into {layer.groups} "
                "groups"
            )
        case layers.AdaptivePool():
            return Row(layer.name, (layer.output, layer.output, shape[-1]))
    return None


def _window_of(layer: layers.Layer) -> tuple[int, int]:
    match layer:
        case layers.Conv():
            return layer.size, layer.stride
        case layers.LocallyConnected() | layers.WithinChannelResponseNorm():
            return layer.size, 1
        case layers.Pool():
            return layer.window, layer.stride
        case layers.Dense():
            return max(layer.window, 1), 1
    return 1, 1


def _steps(name: str, side: int, window: int, stride: int, ceil_mode: bool = False) -> int:
    if side < window and not ceil_mode:
        raise TooSmallError(
            f"{name} has a {window} x {window} window, but only {side} x {side} reach it"
        )
    steps = (side - window) / stride
    return (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1


def _pooled(layer: layers.Pool, shape: Shape) -> list[int]:
    return [
        min(
            max(_steps(layer.name, side, layer.window, layer.stride, layer.ceil_mode), 1),
            (side - 1) // layer.stride + 1,  # a window wholly outside is left out
        )
        for side in shape[:2]
    ]


def _conv(layer: layers.Conv, shape: Shape) -> Row:
    pads = layers.padding_of(layer, shape[0], shape[1])
    height, width = (
        _steps(layer.name, side + sum(pad), layer.size, layer.stride)
        for side, pad in zip(shape[:2], pads, strict=True)
    )
    _must_divide(layer, shape[-1], layer.features)
    weights = layer.size**2 * (shape[-1] // layer.groups) * layer.features
    output = (height, width, layer.features)
    return Row(layer.name, output, weights, layer.features, weights * height * width)


def _must_divide(layer: layers.Conv | layers.Dense, inputs: int, features: int) -> None:
    if inputs % layer.groups or features % layer.groups:
        raise ValueError(
            f"the {inputs} inputs and {features} features of {layer.name} do not divide into "
            f"{layer.groups} groups"
        )


def _dense(layer: layers.Dense, shape: Shape, num_classes: int) -> Row:
    features = layer.features or num_classes
    places: Shape = ()
    inputs = math.prod(shape)
    if layer.window and len(shape) == 3:
        places = tuple(_steps(layer.name, side, layer.window, 1) for side in shape[:2])
        inputs = layer.window**2 * shape[-1]
    _must_divide(layer, shape[-1], features)
    weights = inputs // layer.groups * features
    return Row(layer.name, (*places, features), weights, features, weights * math.prod(places))


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """Returns the sums of weights, biases, parameters and MACs."""
    rows = list(rows)
    return {
        "weights": sum(row.weights for row in rows),
        "biases": sum(row.biases for row in rows),
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
    }


def as_json(rows: list[Row]) -> dict[str, object]:
    """Returns the table and its totals as plain JSON values."""
    listed = [{**dataclasses.asdict(row), "parameters": row.parameters} for row in rows]
    return {"layers": listed, **totals(rows)}


def as_table(rows: list[Row], title: str) -> Table:
    """Returns the table for a terminal, of 80 columns too."""
    narrow: dict[str, Any] = {"show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(title=title, title_justify="left", box=box.SIMPLE, **narrow)
    table.add_column("layer")
    for heading in ("output", "weights", "biases", "parameters", "MACs", "sees"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row.weights, row.biases, row.parameters, row.macs)
        shape = " x ".join(map(str, row.output))
        sees = f"{row.receptive_field}px" if row.receptive_field else "all"
        table.add_row(
            row.name, shape, *(f"{number:,}" if number else "" for number in numbers), sees
        )
    table.add_section()
    table.add_row("total", "", *(f"{number:,}" for number in totals(rows).values()), "")
    return table
