"""The layer table of a net by arithmetic alone: shapes, weights, biases, multiply-adds."""

import dataclasses
from collections.abc import Iterable

from rich.table import Table

from alexnet_jax.models import variants


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the layer table.

    Attributes:
      name: the layer.
      output: its output for one picture, (height, width, channels) or (features,).
      weights, biases: numbers of trained values.
      macs: multiply-adds of convolutions and dense layers for one picture.
    """

    name: str
    output: tuple[int, ...]
    weights: int = 0
    biases: int = 0
    macs: int = 0

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


class TooSmallError(ValueError):
    """The picture vanishes on its way through the net."""


def layer_table(
    network: variants.Network, num_classes: int, input_size: int | None = None
) -> list[Row]:
    """Returns a row for each named layer that changes the shape, in order.

    Args:
      network: the net.
      num_classes: outputs of the last layer.
      input_size: height and width of the picture in pixels; None: the net's own.

    Raises:
      TooSmallError: a layer's window is larger than what reaches it.
    """
    size = network.input_size if input_size is None else input_size
    shape: tuple[int, ...] = (size, size, network.channels)
    rows = []
    for layer in network.layers:
        match layer:
            case variants.Conv():
                row = _conv(layer, shape)
            case variants.Dense():
                row = _dense(layer, shape, num_classes)
            case variants.MaxPool():
                side = _window(layer.name, shape, layer.window, layer.stride, 0)
                row = Row(layer.name, (*side, shape[-1]))
            case _:
                continue
        shape = row.output
        rows.append(row)
    return rows


def _window(
    name: str, shape: tuple[int, ...], window: int, stride: int, padding: variants.Padding
) -> tuple[int, int]:
    pads = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    height, width = (
        (side + sum(pad) - window) // stride + 1 if side + sum(pad) >= window else 0
        for side, pad in zip(shape[:2], pads, strict=True)
    )
    if height < 1 or width < 1:
        raise TooSmallError(
            f"{name} has a {window} x {window} window, but only {shape[0]} x {shape[1]} reach it"
        )
    return height, width


def _conv(layer: variants.Conv, shape: tuple[int, ...]) -> Row:
    side = _window(layer.name, shape, layer.size, layer.stride, layer.padding)
    weights = layer.size**2 * (shape[-1] // layer.groups) * layer.features
    return Row(
        layer.name, (*side, layer.features), weights, layer.features, weights * side[0] * side[1]
    )


def _dense(layer: variants.Dense, shape: tuple[int, ...], num_classes: int) -> Row:
    features = layer.features or num_classes
    inputs = 1
    for side in shape:
        inputs *= side
    return Row(layer.name, (features,), inputs * features, features, inputs * features)


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
    layers = [{**dataclasses.asdict(row), "parameters": row.parameters} for row in rows]
    return {"layers": layers, **totals(rows)}


def as_table(rows: list[Row], title: str) -> Table:
    """Returns the table for a terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in ("output", "weights", "biases", "parameters", "MACs"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row.weights, row.biases, row.parameters, row.macs)
        shape = " x ".join(map(str, row.output))
        table.add_row(row.name, shape, *(f"{number:,}" if number else "" for number in numbers))
    table.add_section()
    table.add_row("total", "", *(f"{number:,}" for number in totals(rows).values()))
    return table
