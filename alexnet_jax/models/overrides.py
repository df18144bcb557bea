"""Changes to a model: the ablations and options, each a function from a spec to a spec."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_jax import schema
from alexnet_jax.models import layers
from alexnet_jax.models.fields import options_of
from alexnet_jax.models.initializers import INITIALIZERS, Initializer
from alexnet_jax.models.layers import Layer, ModelSpec

_RESPONSE_NORMS = (layers.LocalResponseNorm, layers.WithinChannelResponseNorm)


def _with(spec: ModelSpec, kind: type[Layer], /, **fields: Any) -> ModelSpec:
    """Returns the model with fields of all layers of a kind changed."""
    return spec.map(lambda x: dataclasses.replace(x, **fields) if isinstance(x, kind) else x)


def without_kind(spec: ModelSpec, *kinds: type[Layer]) -> ModelSpec:
    """Returns the model without the layers of some kinds."""
    return spec.map(lambda layer: None if isinstance(layer, kinds) else layer)


def with_initializer(spec: ModelSpec, name: str) -> ModelSpec:
    """Initializes every layer with weights as INITIALIZERS[name] says."""
    chosen = INITIALIZERS[name]

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, layers.WeightLayer):
            return layer
        return dataclasses.replace(layer, initializer=chosen.get(layer.name, chosen[""]))

    return spec.map(change)


def with_lrn(spec: ModelSpec, where: str) -> ModelSpec:
    """Removes all response norms ("none"; configuration 148), or has one after each convolution.

    "all" puts the model's own local response norm, or the paper's, after the activation of every
    convolution.
    """
    if where == "none":
        return without_kind(spec, *_RESPONSE_NORMS)
    norms = [layer for layer in spec.layers if isinstance(layer, layers.LocalResponseNorm)]
    norm = norms[0] if norms else layers.LocalResponseNorm("norm", alpha=1e-4 / 5)
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
    del kind
    names = {layer.name for layer in spec.layers if isinstance(layer, layers.Conv)}
    narrowed = ("conv2", "conv5") if "conv5" in names else ()

    def change(layer: Layer) -> Layer:
        if isinstance(layer, layers.Conv) and layer.name in narrowed:
            return dataclasses.replace(layer, padding=max(layer.padding - 1, 0))
        return layer

    return _with(spec, layers.Pool, window=2, stride=2, ceil_mode=True).map(change)


def with_activation(spec: ModelSpec, kind: str) -> ModelSpec:
    """Replaces the ReLUs; with "abs_tanh" pooling is by averages, as in Jarrett et al. (2009)."""
    spec = _with(spec, layers.Activation, kind=kind)
    return _with(spec, layers.Pool, kind="average") if kind == "abs_tanh" else spec


def with_dropout(spec: ModelSpec, rate: float) -> ModelSpec:
    """Sets the rate of every dropout layer; 0 removes them.

    Raises:
      ValueError: the model has no dropout layer.
    """
    if rate and not any(isinstance(layer, layers.Dropout) for layer in spec.layers):
        raise ValueError("dropout: the model has no dropout layer; leave it out or set it to 0.")
    return _with(spec, layers.Dropout, rate=rate) if rate else without_kind(spec, layers.Dropout)


def without_layer(spec: ModelSpec, name: str) -> ModelSpec:
    """Removes a convolution with the activation and the norms that follow it.

    Pooling stays, so that the feature maps keep their sizes (paper, section 7: any middle layer).
    Without the first convolution, the second gets its groups: it sees all colors.

    Raises:
      ValueError: the model has no convolution of that name.
    """
    convolutions = [layer for layer in spec.layers if isinstance(layer, layers.Conv)]
    names = [layer.name for layer in convolutions]
    if name not in names:
        raise ValueError(
            f"remove_layer: there is no convolution {name!r}, only {', '.join(names)}."
            f"{schema.did_you_mean(name, names)}"
        )
    result: list[Layer] = []
    removing = False
    for layer in spec.layers:
        if isinstance(layer, layers.Conv):
            removing = layer.name == name
            if name == names[0] and layer.name in names[1:2]:
                layer = dataclasses.replace(layer, groups=convolutions[0].groups)
        elif not isinstance(layer, (layers.Activation, layers.Norm, layers.Pool)):
            removing = False
        if isinstance(layer, layers.Pool) or not removing:
            result.append(layer)
    return dataclasses.replace(spec, layers=tuple(result))


def fully_convolutional(spec: ModelSpec, wanted: bool = True) -> ModelSpec:
    """Applies the dense layers at each position of a larger image, with the same parameters.

    Raises:
      ValueError: the model has locally connected layers.
    """
    if not wanted:
        return spec
    sizes: dict[str, int] = {}
    for layer, shape, _ in spec.trace():
        if isinstance(layer, layers.LocallyConnected):
            raise ValueError(
                f"fully_convolutional: the weights of {layer.name} fit one size of image only."
            )
        sizes[layer.name] = shape[0] if len(shape) == 3 else 1

    def change(layer: Layer) -> Layer:
        if isinstance(layer, layers.Dense):
            return dataclasses.replace(layer, input_spatial_size=sizes[layer.name])
        return layer

    return without_kind(spec, layers.AdaptivePool).map(change)  # the feature maps keep their size


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
            initial = {name: given.pop(name) for name in options_of(Initializer) if name in given}
            if "std" in initial:
                initial["kernel"] = "normal"
            given["initializer"] = dataclasses.replace(layer.initializer, **initial)
            if "bias" in initial and given["initializer"].kernel == "torch":
                errors.append(f"layers.{layer.name}.bias: has no effect on initializer 'torch'.")
        unknown = given.keys() - options_of(layer).keys() - {"initializer"}
        errors.extend(
            f"layers.{layer.name}.{name}: {type(layer).__name__} has no such field."
            for name in sorted(unknown)
        )
        return layer if unknown else dataclasses.replace(layer, **given)

    changed = spec.map(change)
    if errors:
        raise ValueError(*errors)
    return changed


# By the name of the override, in the order in which they are applied.
OVERRIDES: Mapping[str, Callable[[ModelSpec, Any], ModelSpec]] = {
    "initializer": with_initializer,
    "layers": with_fields,
    "remove_layer": without_layer,
    "lrn": with_lrn,
    "pooling": with_pooling,
    "activation": with_activation,
    "dropout": with_dropout,
    "fully_convolutional": fully_convolutional,
    "input_size": lambda spec, size: dataclasses.replace(spec, input_size=size),
}


def override(spec: ModelSpec, values: Mapping[str, Any]) -> ModelSpec:
    """Returns a model with overrides applied; a value of None leaves it as it is.

    Raises:
      ValueError: some do not fit the model; its arguments are a sentence for each.
    """
    errors: list[str] = []
    for name, change in OVERRIDES.items():
        try:
            if values.get(name) is not None:
                spec = change(spec, values[name])
        except ValueError as error:
            errors += error.args
    if errors:
        raise ValueError(*errors)
    return spec
