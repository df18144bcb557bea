"""Changes to a model: the ablations and options, each a function from a spec to a spec."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_jax.models import layers
from alexnet_jax.models.initializers import INITIALIZERS
from alexnet_jax.models.layers import ACTIVATIONS, LAYER_FIELDS, MAX_INPUT_SIZE, Layer, ModelSpec
from alexnet_jax.schema import Key, Table, choice, did_you_mean, flag, integer, number, text


def _with(spec: ModelSpec, kind: type[Layer], /, **fields: Any) -> ModelSpec:
    """Returns the model with fields of all layers of a kind changed."""
    return spec.map(kind, lambda layer: dataclasses.replace(layer, **fields))


def without_kind(spec: ModelSpec, kind: type[Layer]) -> ModelSpec:
    """Returns the model without the layers of a kind."""
    return spec.map(kind, lambda layer: None)


def with_initializer(spec: ModelSpec, name: str) -> ModelSpec:
    """Sets the initializer of every layer with weights to that in INITIALIZERS[name]."""
    chosen = INITIALIZERS[name]

    def change(layer: layers.WeightLayer) -> Layer:
        return dataclasses.replace(layer, initializer=chosen.get(layer.name, chosen[""]))

    return spec.map(layers.WeightLayer, change)


def with_lrn(spec: ModelSpec, where: str) -> ModelSpec:
    """Removes all response norms ("none"; configuration 148) or puts one after each convolution.

    "all" puts the model's own local response norm, or the paper's, after the activation of every
    convolution.
    """
    if where == "none":
        return without_kind(spec, layers.ResponseNorm)
    of_paper = layers.LocalResponseNorm("norm", alpha=1e-4 / 5)
    norm = next(iter(spec.of_kind(layers.LocalResponseNorm)), of_paper)
    result: list[Layer] = []
    convolution = ""
    for layer in without_kind(spec, layers.LocalResponseNorm).layers:
        result.append(layer)
        if isinstance(layer, layers.Conv):
            convolution = layer.name
        elif isinstance(layer, layers.Activation) and convolution:
            result.append(dataclasses.replace(norm, name=f"{convolution}_norm"))
            convolution = ""
    return dataclasses.replace(spec, layers=tuple(result))


def with_pooling(spec: ModelSpec, kind: str) -> ModelSpec:
    """Makes pooling windows 2 x 2 with stride 2 ("non_overlapping") and `ceil_mode`.

    As in configuration 147, in a model of five convolutions conv2 and conv5 lose a pixel of
    padding, so that the input of fc6 keeps its size.
    """
    paddings = {layer.name: layer.padding for layer in spec.of_kind(layers.Conv)}
    narrowed = paddings.keys() & {"conv2", "conv5"} if "conv5" in paddings else ()
    spec = with_fields(spec, {name: {"padding": max(paddings[name] - 1, 0)} for name in narrowed})
    return _with(spec, layers.Pool, window=2, stride=2, ceil_mode=True)


def with_activation(spec: ModelSpec, kind: str) -> ModelSpec:
    """Replaces the ReLUs; with "abs_tanh" pooling is by averages, as in Jarrett et al. (2009)."""
    spec = _with(spec, layers.Activation, kind=kind)
    return _with(spec, layers.Pool, kind="average") if kind == "abs_tanh" else spec


def with_dropout(spec: ModelSpec, rate: float) -> ModelSpec:
    """Sets the rate of every dropout layer; 0 removes them.

    Raises:
      ValueError: the model has no dropout layer.
    """
    if rate and not spec.of_kind(layers.Dropout):
        raise ValueError("dropout: the model has no dropout layer; leave it out or set it to 0.")
    return _with(spec, layers.Dropout, rate=rate) if rate else without_kind(spec, layers.Dropout)


def without_layer(spec: ModelSpec, name: str) -> ModelSpec:
    """Removes a convolution with the activation and the norms that follow it.

    Pooling stays, so that the feature maps keep their sizes (paper, section 7: any middle layer).
    Without the first convolution, the second gets its groups: it sees all colors.

    Raises:
      ValueError: the model has no convolution of that name.
    """
    convolutions = spec.of_kind(layers.Conv)
    names = [layer.name for layer in convolutions]
    if name not in names:
        raise ValueError(
            f"remove_layer: there is no convolution {name!r}, only {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )
    if name == names[0]:
        spec = with_fields(spec, {x: {"groups": convolutions[0].groups} for x in names[1:2]})
    start = [layer.name for layer in spec.layers].index(name)
    end = start + 1
    while isinstance(spec.layers[end], layers.Activation | layers.Norm | layers.Pool):
        end += 1
    pools = (layer for layer in spec.layers[start:end] if isinstance(layer, layers.Pool))
    return dataclasses.replace(spec, layers=(*spec.layers[:start], *pools, *spec.layers[end:]))


def fully_convolutional(spec: ModelSpec) -> ModelSpec:
    """Applies the dense layers at each position of a larger image, with the same parameters.

    Raises:
      ValueError: the model has locally connected layers.
    """
    if local := spec.of_kind(layers.LocallyConnected):
        raise ValueError(
            f"fully_convolutional: the weights of {local[0].name} fit one size of image only."
        )
    sizes = {x.name: shape[0] if len(shape) == 3 else 1 for x, shape, _ in spec.trace()}
    without = without_kind(spec, layers.AdaptivePool)  # the feature maps keep their size
    return without.map(
        layers.Dense, lambda x: dataclasses.replace(x, input_spatial_size=sizes[x.name])
    )


def with_fields(spec: ModelSpec, rows: Mapping[str, Mapping[str, Any]]) -> ModelSpec:
    """Sets fields of single layers, such as {"conv1": {"features": 64, "std": 0.02}}.

    Besides the fields of its record, a layer with weights has `std` and `bias` of its initializer.
    A value of None leaves the field as it is.

    Raises:
      ValueError: the model has no layer of a name, or the layer has no such field; its arguments
        are a sentence for each.
    """
    named = [layer.name for layer in spec.layers if layer.name]
    errors = [
        f"layers.{name}: there is no such layer, only {', '.join(named)}."
        for name in rows
        if name not in named
    ]

    def change(layer: Layer) -> Layer:
        given = {name: x for name, x in rows.get(layer.name, {}).items() if x is not None}
        if isinstance(layer, layers.WeightLayer):
            initial = {name: given.pop(name) for name in ("std", "bias") if name in given}
            kernel = "normal" if "std" in initial else layer.initializer.kernel
            given["initializer"] = dataclasses.replace(layer.initializer, kernel=kernel, **initial)
            if "bias" in initial and kernel == "torch":
                errors.append(f"layers.{layer.name}.bias: has no effect on initializer 'torch'.")
        unknown = given.keys() - {field.name for field in dataclasses.fields(layer)}
        errors.extend(
            f"layers.{layer.name}.{name}: {type(layer).__name__} has no such field."
            for name in sorted(unknown)
        )
        return layer if unknown else dataclasses.replace(layer, **given)

    changed = spec.map(Layer, change)
    if errors:
        raise ValueError(*errors)
    return changed


# Name of the override -> its config key and the change, in the order in which they are applied.
OVERRIDES: Mapping[str, tuple[Key | Table, Callable[[ModelSpec, Any], ModelSpec]]] = {
    "initializer": (choice(None, "Initializer of all layers.", INITIALIZERS), with_initializer),
    "layers": (Table(LAYER_FIELDS, {}), with_fields),  # of single layers, by name
    "remove_layer": (text(None, "Name of a convolution to remove."), without_layer),
    "lrn": (
        choice(None, "Response norms: none, or all: one after each convolution.", ("none", "all")),
        with_lrn,
    ),
    "pooling": (
        choice(None, "Pooling windows: 2 x 2, as in configuration 147.", ("non_overlapping",)),
        with_pooling,
    ),
    "activation": (
        choice(None, "Activation instead of ReLU; abs_tanh also pools by averages.", ACTIVATIONS),
        with_activation,
    ),
    "dropout": (number(None, "Rate of every dropout layer; 0: none.", 0, 0.99), with_dropout),
    "fully_convolutional": (
        flag(None, "Whether dense layers are applied at each position of larger images."),
        lambda spec, wanted: fully_convolutional(spec) if wanted else spec,
    ),
    "input_size": (
        integer(None, "Height and width of the model's input, in pixels.", 1, MAX_INPUT_SIZE),
        lambda spec, size: dataclasses.replace(spec, input_size=size),
    ),
}
