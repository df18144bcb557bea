"""Changes to any row: the ablations and options, each a function from a net to a net."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_jax.models import layers
from alexnet_jax.models.initializers import with_initializer
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.models.summary import layer_table


def _map(spec: ModelSpec, change: Callable[[layers.Layer], layers.Layer | None]) -> ModelSpec:
    """Returns the net with each layer changed, or left out where `change` gives None."""
    changed = (change(layer) for layer in spec.layers)
    kept = tuple(layer for layer in changed if layer is not None)
    return dataclasses.replace(spec, layers=kept)


def with_response_norm(spec: ModelSpec, where: str) -> ModelSpec:
    """Removes all response norms ("none"; configuration 148), or has one after each convolution.

    "all" puts the row's own norm, or the paper's, after the ReLU of every convolution.
    """
    norms = [layer for layer in spec.layers if isinstance(layer, layers.LocalResponseNorm)]
    both = (layers.LocalResponseNorm, layers.WithinChannelResponseNorm)
    if where == "none":
        return _map(spec, lambda layer: None if isinstance(layer, both) else layer)
    bare = _map(spec, lambda x: None if isinstance(x, layers.LocalResponseNorm) else x)
    model = norms[0] if norms else layers.LocalResponseNorm("norm", alpha=1e-4 / 5)
    result: list[layers.Layer] = []
    convolution = None
    for layer in bare.layers:
        result.append(layer)
        if isinstance(layer, layers.Conv):
            convolution = layer.name
        elif isinstance(layer, layers.Activation) and convolution:
            result.append(dataclasses.replace(model, name=f"{convolution}_norm"))
            convolution = None
    return dataclasses.replace(spec, layers=tuple(result))


def with_pooling(spec: ModelSpec, kind: str) -> ModelSpec:
    """Makes pools 2 x 2 with stride 2 ("non_overlapping"), a last one overhanging odd maps.

    As in configuration 147, in a net of five convolutions conv2 and conv5 lose a pixel of padding,
    so that fc6 sees maps of the same size as before.
    """
    del kind
    names = {layer.name for layer in spec.layers if isinstance(layer, layers.Conv)}
    less = {"conv2", "conv5"} if "conv5" in names else set()

    def change(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.Pool):
            return dataclasses.replace(layer, window=2, stride=2, ceil_mode=True)
        if isinstance(layer, layers.Conv) and layer.name in less:
            return dataclasses.replace(layer, padding=layer.padding - 1)
        return layer

    return _map(spec, change)


def with_activation(spec: ModelSpec, kind: str) -> ModelSpec:
    """Puts another function where the ReLUs are; "abs_tanh" pools by averages, as Jarrett et al."""
    pool = "average" if kind == "abs_tanh" else None

    def change(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.Activation):
            return layers.Activation(kind)
        if isinstance(layer, layers.Pool) and pool:
            return dataclasses.replace(layer, kind=pool)
        return layer

    return _map(spec, change)


def with_dropout(spec: ModelSpec, rate: float) -> ModelSpec:
    """Sets the rate of every dropout; 0 takes them out."""

    def change(layer: layers.Layer) -> layers.Layer | None:
        if isinstance(layer, layers.Dropout):
            return dataclasses.replace(layer, rate=rate) if rate else None
        return layer

    return _map(spec, change)


def without_layer(spec: ModelSpec, name: str) -> ModelSpec:
    """Takes one convolution out, with the activation and the norms that follow it.

    Pools stay, so that the maps keep their sizes (paper, section 7: any middle layer). Without the
    first, the second sees the picture in its place: all of it, as colors have no towers.

    Raises:
      ValueError: the net has no convolution of that name.
    """
    convolutions = [layer for layer in spec.layers if isinstance(layer, layers.Conv)]
    names = [layer.name for layer in convolutions]
    if name not in names:
        raise ValueError(f"there is no convolution {name!r} to take out, only {', '.join(names)}")
    result: list[layers.Layer] = []
    dropping = False
    follows = (
        layers.Activation,
        layers.LocalResponseNorm,
        layers.WithinChannelResponseNorm,
        layers.BatchNorm,
    )
    for layer in spec.layers:
        if isinstance(layer, layers.Conv):
            dropping = layer.name == name
            if name == names[0] and layer.name in names[1:2]:
                layer = dataclasses.replace(layer, groups=convolutions[0].groups)
        elif dropping and not isinstance(layer, (*follows, layers.Pool)):
            dropping = False
        if isinstance(layer, layers.Pool) or not dropping:
            result.append(layer)
    return dataclasses.replace(spec, layers=tuple(result))


def fully_convolutional(spec: ModelSpec, wanted: bool) -> ModelSpec:
    """Lets the dense layers run at every place of a larger picture, with the same parameters.

    Raises:
      ValueError: the net has locally connected layers.
    """
    if not wanted:
        return spec
    for layer in spec.layers:
        if isinstance(layer, layers.LocallyConnected):
            raise ValueError(f"the weights of {layer.name} are for one size of picture only")
    sides = {row.name: row.output[0] for row in layer_table(spec, 2) if len(row.output) == 3}
    side = spec.input_size
    windows: dict[str, int] = {}
    for layer in spec.layers:
        side = sides.get(getattr(layer, "name", ""), side)
        if isinstance(layer, layers.Dense):
            windows[layer.name] = side if not windows else 1

    def change(layer: layers.Layer) -> layers.Layer | None:
        if isinstance(layer, layers.AdaptivePool):  # the maps keep their size
            return None
        if isinstance(layer, layers.Dense):
            return dataclasses.replace(layer, window=windows[layer.name])
        return layer

    return _map(spec, change)


def with_input_size(spec: ModelSpec, size: int) -> ModelSpec:
    """Sets the height and width of the picture, in pixels."""
    return dataclasses.replace(spec, input_size=size)


def with_fields(spec: ModelSpec, rows: Mapping[str, Mapping[str, Any]]) -> ModelSpec:
    """Sets single fields of named layers, as {"conv1": {"features": 64, "std": 0.02}}.

    Besides the fields of the layer's record, a layer with weights has `std` and `bias`, how it
    starts. A value of None leaves the field as it is.

    Raises:
      ValueError: the net has no layer of a name, or the layer has no such field; its arguments are
        a sentence for each.
    """
    named = [name for layer in spec.layers if (name := getattr(layer, "name", ""))]
    mistakes = [
        f"the net has no layer {name!r}, only {', '.join(named)}"
        for name in rows
        if name not in named
    ]

    def change(layer: layers.Layer) -> layers.Layer:
        name = getattr(layer, "name", "")
        given = rows.get(name, {})
        fields = {field: value for field, value in given.items() if value is not None}
        if isinstance(layer, layers.Conv | layers.LocallyConnected | layers.Dense):
            start: dict[str, Any] = {
                field: fields.pop(field) for field in ("std", "bias") if field in fields
            }
            if "std" in start:
                start["kernel"] = "normal"
            fields["init"] = dataclasses.replace(layer.init, **start)
        known = {field.name for field in dataclasses.fields(layer)}
        mistakes.extend(
            f"the layer {name} has no {field!r}" for field in fields if field not in known
        )
        return dataclasses.replace(layer, **{f: fields[f] for f in fields if f in known})

    changed = _map(spec, change)
    if mistakes:
        raise ValueError(*mistakes)
    return changed


# By the name of the override, in the order they are applied.
OVERRIDES: Mapping[str, Callable[[ModelSpec, Any], ModelSpec]] = {
    "init": with_initializer,
    "layers": with_fields,
    "without": without_layer,
    "response_norm": with_response_norm,
    "pooling": with_pooling,
    "activation": with_activation,
    "dropout": with_dropout,
    "fully_convolutional": fully_convolutional,
    "input_size": with_input_size,
}


def override(spec: ModelSpec, **values: Any) -> ModelSpec:
    """Returns a net with overrides applied; a value of None leaves the row as it is.

    Raises:
      TypeError: there is no such override.
      ValueError: some do not fit the net; its arguments are a sentence for each.
    """
    unknown = values.keys() - OVERRIDES.keys()
    if unknown:
        raise TypeError(f"{sorted(unknown)} are no overrides: {', '.join(OVERRIDES)}")
    mistakes: list[str] = []
    for name, change in OVERRIDES.items():
        try:
            if values.get(name) is not None:
                spec = change(spec, values[name])
        except ValueError as error:
            mistakes += error.args
    if mistakes:
        raise ValueError(*mistakes)
    return spec
