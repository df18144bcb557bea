"""The layer table of a model by arithmetic only: shapes, parameters, multiply-adds."""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich import box
from rich.table import Column, Table

from alexnet_jax.models.layers import MAX_INPUT_SIZE, ModelSpec, Shape, TooSmallError


class Row(NamedTuple):
    """One line of the layer table.

    Attributes:
      name: of the layer.
      output: shape of its output for one image, (height, width, channels) or (features,).
      weights, biases, parameters: numbers of trained values; parameters is the sum of both.
      macs: multiply-adds of convolutions and dense layers for one image.
      receptive_field: height and width, in pixels of the image, that one output depends on; None:
        the whole image.
    """

    name: str
    output: Shape
    weights: int = 0
    biases: int = 0
    parameters: int = 0
    macs: int = 0
    receptive_field: int | None = None


def layer_table(spec: ModelSpec, num_classes: int, input_size: int | None = None) -> list[Row]:
    """Returns a row for each layer that has parameters or changes the shape, in order.

    Args:
      spec: the model.
      num_classes: outputs of the last layer.
      input_size: height and width of the images in pixels; None: the model's own.

    Raises:
      TooSmallError: a layer's window is larger than its input.
      ValueError: a layer does not fit its input.
    """
    rows: list[Row] = []
    field, jump = 1.0, 1
    for layer, shape, output in spec.trace(num_classes, input_size):
        size, stride = layer.receptive_window()
        field, jump = field + (size - 1) * jump, jump * stride
        counts = {name: math.prod(axes) for name, axes in layer.parameters(shape).items()}
        if counts or output != shape:
            biases = counts.pop("bias", 0)
            # each output of a layer with a kernel has one bias and kernel / bias weights
            macs = counts["kernel"] // biases * math.prod(output) if "kernel" in counts else 0
            weights = sum(counts.values())
            sees = int(field) if field < math.inf else None
            rows.append(Row(layer.name, output, weights, biases, weights + biases, macs, sees))
    return rows


def smallest_input(spec: ModelSpec) -> int:
    """Returns the smallest height and width of an image, in pixels, that a model can take.

    If that is more than MAX_INPUT_SIZE, it is MAX_INPUT_SIZE + 1.
    """

    def fits(size: int) -> bool:
        try:
            return bool(list(spec.trace(input_size=size)))
        except TooSmallError:
            return False

    return bisect.bisect_left(range(1, MAX_INPUT_SIZE + 1), True, key=fits) + 1


def parameter_shapes(spec: ModelSpec, num_classes: int = 2) -> dict[str, Any]:
    """Returns the tree {layer: {parameter: shape and dtype}} of a model, without tracing it."""
    return {
        layer.name: {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}
        for layer, shape, _ in spec.trace(num_classes)
        if (sizes := layer.parameters(shape))
    }


def parameter_paths(spec: ModelSpec, params: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns a tree like `params`, of the paths that patterns are matched to.

    A path is 'KIND/LAYER/PARAMETER', KIND being the class of the layer: 'Conv/conv1/kernel'.

    Args:
      spec: the model.
      params: a tree {layer: {parameter: anything}}, such as `parameter_shapes` returns.
    """
    kinds = {layer.name: type(layer).__name__ for layer in spec.layers}
    return {
        layer: {name: f"{kinds[layer]}/{layer}/{name}" for name in parameters}
        for layer, parameters in params.items()
    }


def list_parameter_paths(spec: ModelSpec) -> list[str]:
    """Returns the path of each parameter of a model; see `parameter_paths`."""
    return jax.tree.leaves(parameter_paths(spec, parameter_shapes(spec)))


def describe_parameters(chosen: Mapping[str, Mapping[str, bool]]) -> str:
    """Returns the names of chosen parameters: "conv1" of a whole layer, else "conv2/kernel".

    Args:
      chosen: whether each is chosen, {layer: {parameter: bool}}.
    """
    names = []
    for layer, parameters in chosen.items():
        whole = all(parameters.values())
        names += [layer] if whole else [f"{layer}/{x}" for x, is_in in parameters.items() if is_in]
    return ", ".join(names) or "none"


def sharding_errors(spec: ModelSpec, count: int, start: int = 0) -> Iterator[str]:
    """Returns why `count` devices cannot share the features of layers from `start` on."""
    errors = [layer.sharding_error(shape[-1], count) for layer, shape, _ in spec.trace()]
    return filter(None, errors[start:])


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Returns the sums of weights, biases, parameters and MACs."""
    names = ("weights", "biases", "parameters", "macs")
    return {name: sum(getattr(row, name) for row in rows) for name in names}


def as_json(rows: list[Row]) -> dict[str, object]:
    """Returns the table and its totals as plain JSON values."""
    return {"layers": [row._asdict() for row in rows], **totals(rows)}


def as_table(rows: list[Row], title: str) -> Table:
    """Returns the table for a terminal of 80 columns or more."""
    narrow: dict[str, Any] = {"show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
    headings = ("output", "weights", "biases", "parameters", "MACs", "sees")
    columns = (Column(heading, justify="right") for heading in headings)
    table = Table("layer", *columns, title=title, title_justify="left", box=box.SIMPLE, **narrow)
    for row in rows:
        numbers = (f"{number:,}" if number else "" for number in totals([row]).values())
        sees = f"{row.receptive_field}px" if row.receptive_field else "all"
        table.add_row(row.name, " x ".join(map(str, row.output)), *numbers, sees)
    table.add_section()
    table.add_row("total", "", *(f"{number:,}" for number in totals(rows).values()), "")
    return table
