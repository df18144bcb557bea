"""Overrides of a model: the layers and parameters that result."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import (
    MODEL_OPTIONS,
    AlexNet,
    create_model,
    create_spec,
    layers,
    list_models,
    parameter_shapes,
)
from alexnet_jax.models.initializers import Initializer
from alexnet_jax.models.layers import LAYER_FIELDS
from alexnet_jax.models.summary import layer_table, totals
from alexnet_jax.models.variants import VARIANTS


def names(spec: layers.ModelSpec) -> list[str]:
    """The layers in order, by name or kind."""
    return [layer.name or type(layer).__name__ for layer in spec.layers]


def test_none_leaves_the_model_as_it_is() -> None:
    nothing = dict.fromkeys(MODEL_OPTIONS.keys() - {"name", "layers"})
    assert create_spec("paper", **nothing, layers={}) == VARIANTS["paper"]
    assert list_models() == list(VARIANTS)


def kinds(base: type[layers.Layer] = layers.Layer) -> Iterator[type[layers.Layer]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_options_of_layers_are_their_fields() -> None:
    fields = {field.name for kind in kinds() for field in dataclasses.fields(kind)}
    assert LAYER_FIELDS.keys() == fields - {"name", "initializer"} | {"std", "bias"}
    for name, key in LAYER_FIELDS.items():
        assert key.doc.endswith("."), name
        assert key.kind not in (int, float) or math.isfinite(key.high - key.low), name


@pytest.mark.parametrize("name", ["paper", "groupnorm", "cifar_18", "cifar_11"])
def test_counting_is_cheap_for_the_bounds_of_every_field(name: str) -> None:
    started, accepted = time.perf_counter(), 0
    for layer in VARIANTS[name].layers:
        settable = {field.name for field in dataclasses.fields(layer)} & LAYER_FIELDS.keys()
        for field in settable if layer.name else ():
            key = LAYER_FIELDS[field]
            for value in (key.low, key.high) if key.kind in (int, float) else ():
                with contextlib.suppress(ValueError):
                    fields = {layer.name: {field: key.kind(value)}}
                    layer_table(create_spec(name, layers=fields), 1000)
                    accepted += 1
    assert accepted > 10
    assert time.perf_counter() - started < 5


def test_lrn_none_removes_every_response_norm() -> None:
    """Configuration 148 has no norm layer at all."""
    before, after = names(VARIANTS["paper"]), names(create_spec("paper", lrn="none"))
    assert [name for name in before if "norm" not in name] == after
    assert len(before) - len(after) == 3


def test_lrn_all_adds_a_norm_after_each_convolutions_activation() -> None:
    spec = create_spec("paper_text", lrn="all")
    order = names(spec)
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        at = order.index(layer)
        assert order[at + 1 : at + 3] == ["Activation", f"{layer}_norm"]
    assert sum("norm" in name for name in order) == 5
    norms = [layer for layer in spec.layers if isinstance(layer, layers.LocalResponseNorm)]
    assert {(norm.alpha, norm.groups) for norm in norms} == {(1e-4, 2)}


def test_non_overlapping_pools_keep_the_input_size_of_fc6() -> None:
    """Configuration 147: 28, 26, 13, 11 and 6 pixels; 686,891,552 multiply-adds."""
    rows = layer_table(create_spec("paper", pooling="non_overlapping"), 1000)
    sides = [row.output[0] for row in rows if len(row.output) == 3]
    assert sides == [55, 28, 26, 13, 13, 13, 11, 6]
    assert totals(rows)["parameters"] == 60_965_224
    assert totals(rows)["macs"] == 686_891_552


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "abs_tanh"])
def test_activation(kind: str) -> None:
    spec = create_spec("paper", activation=kind)
    found = {layer.kind for layer in spec.layers if isinstance(layer, layers.Activation)}
    pools = {layer.kind for layer in spec.layers if isinstance(layer, layers.Pool)}
    assert found == {kind}
    assert pools == ({"average"} if kind == "abs_tanh" else {"max"})


def test_dropout_sets_the_rate_or_removes_the_layers() -> None:
    def dropouts(rate: float | None) -> list[layers.Layer]:
        spec = create_spec("caffe", dropout=rate)
        return [layer for layer in spec.layers if isinstance(layer, layers.Dropout)]

    assert {layer.rate for layer in dropouts(None)} == {0.5}
    assert dropouts(0.2) == [dataclasses.replace(layer, rate=0.2) for layer in dropouts(None)]
    assert len(dropouts(0.2)) == 2
    assert dropouts(0.0) == []


def test_remove_layer_takes_the_norms_and_the_activation_but_not_the_pool() -> None:
    removed = {
        "conv1": {"conv1", "norm1", "Activation"},
        "conv2": {"conv2", "Activation", "norm2", "within_channel_norm2"},
        "conv4": {"conv4", "Activation"},
        "conv5": {"conv5", "Activation"},
    }
    before = names(VARIANTS["paper"])
    for name, gone in removed.items():
        after = names(create_spec("paper", remove_layer=name))
        assert len(before) - len(after) == len(gone), name
        assert set(before) - set(after) == gone - {"Activation"}, name
        assert {"pool1", "pool2", "pool5"} <= set(after)


def test_without_the_first_convolution_the_second_sees_all_colors() -> None:
    spec = create_spec("paper", remove_layer="conv1")
    assert {x.name: x.groups for x in spec.layers}["conv2"] == 1


def test_fields_of_single_layers() -> None:
    rows = {
        "conv1": {"features": 32, "std": 0.5, "bias": None},
        "norm1": {"size": 9, "alpha": 0.1},
        "pool1": {"window": 2},
    }
    conv1, norm1, pool1, *_ = create_spec("paper", layers=rows).layers
    assert isinstance(conv1, layers.Conv)
    assert (conv1.features, conv1.kernel_size) == (32, 11)
    assert conv1.initializer == Initializer("normal", 0.5, 0.0)
    assert norm1 == layers.LocalResponseNorm("norm1", size=9, alpha=0.1, groups=2)
    assert pool1 == layers.Pool("pool1", window=2, stride=2)


def test_a_std_makes_the_initializer_gaussian() -> None:
    conv1 = create_spec("torchvision", layers={"conv1": {"std": 0.5}}).layers[0]
    assert isinstance(conv1, layers.Conv)
    assert conv1.initializer == Initializer("normal", 0.5)


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        ({"pooling": "overlapping"}, ["pooling"]),
        ({"lrn": "some"}, ["lrn"]),
        ({"init": "text"}, ["init"]),
        ({"dropout": 1.5}, ["dropout"]),
        ({"fully_convolutional": "maybe"}, ["fully_convolutional"]),
        ({"num_classes": "ten"}, ["num_classes"]),
        ({"num_classes": None}, ["num_classes"]),
        ({"layers": {"conv1": {"features": 48.5}}}, ["layers.conv1.features"]),
        ({"layers": {"conv1": {"kernel_size": 2**31}}}, ["layers.conv1.kernel_size"]),
        ({"layers": {"conv1": {"stride": 2**31}}}, ["layers.conv1.stride"]),
        ({"layers": {"conv1": {"std": 1e308}}}, ["layers.conv1.std"]),
        ({"layers": {"norm1": {"alpha": 1e308}}}, ["layers.norm1.alpha"]),
        ({"num_classes": 2**31}, ["num_classes"]),
        ({"input_size": 2**31}, ["input_size"]),
        ({"layers": {"conv1": 48}}, ["layers.conv1"]),
        ({"layers": ["conv1"]}, ["layers"]),
        ({"layers": {"conv1": {"features": 97}}}, ["layers.norm1"]),
        ({"layers": {"norm1": {"groups": 7}}}, ["layers.norm1"]),
        ({"layers": {"conv2": {"groups": 7}}}, ["layers.conv2"]),
        ({"input_size": 32}, ["layers.pool5"]),
        ({"dropout": 2, "initializer": "x"}, ["dropout", "initializer"]),
        (
            {
                "layers": {"conv9": {"features": 3}, "conv1": {"window": 3}, "pool1": {"std": 0.1}},
                "remove_layer": "conv7",
            },
            ["layers.conv9", "layers.conv1.window", "layers.pool1.std", "remove_layer"],
        ),
    ],
)
def test_every_error_is_named(overrides: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(ValueError, match=": ") as error:
        create_model("paper", **overrides)
    assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == paths


def test_other_models_errors_are_named() -> None:
    with pytest.raises(ValueError, match=r"^name: .*'paper'"):
        create_model("papper")
    with pytest.raises(ValueError, match=r"^layers\.local3: "):
        create_model("cifar_11", layers={"local3": {"kernel_size": 4}})
    with pytest.raises(ValueError, match=r"^dropout: "):
        create_model("cifar_26", dropout=0.5)
    assert create_spec("cifar_26", dropout=0.0) == VARIANTS["cifar_26"]
    with pytest.raises(ValueError, match=r"^layers\.conv1\.bias: "):
        create_model("torchvision", layers={"conv1": {"bias": 1.0}})
    with pytest.raises(ValueError, match=r"^fully_convolutional: .*local3"):
        create_model("cifar_11", fully_convolutional=True)


# ---- Heat maps


def random_variables(model: AlexNet) -> dict:
    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        std = 1 / np.sqrt(np.prod(shape.shape[:-1]))
        return np.random.default_rng(0).normal(0, std, shape.shape).astype(np.float32)

    return {"params": jax.tree.map(draw, parameter_shapes(model.spec, model.num_classes))}


def heat_map_and_logits(model: AlexNet, variables: dict, images: np.ndarray) -> tuple:
    def both(variables: dict, images: jax.Array) -> tuple:
        return model.apply(variables, images, heat_map=True), model.apply(variables, images)

    return jax.jit(both)(variables, images)


def test_parameters_give_the_same_logits_fully_convolutional_and_their_mean_on_larger_images() -> (
    None
):
    small = {
        layer.name: {"features": 16}
        for layer in VARIANTS["torchvision"].layers[:-1]
        if isinstance(layer, layers.WeightLayer)
    }
    model = create_model("torchvision", 5, layers=small)
    wide = create_model("torchvision", 5, layers=small, fully_convolutional=True)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 288, 320, 3)).astype(np.float32)
    variables = random_variables(model)
    same = jax.eval_shape(wide.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, same)

    at_224 = images[:, :224, :224]
    np.testing.assert_allclose(
        jax.jit(wide.apply)(variables, at_224),
        jax.jit(model.apply)(variables, at_224),
        rtol=1e-4,
        atol=1e-6,
    )
    heat, mean = heat_map_and_logits(wide, variables, images)
    assert heat.shape == (1, 3, 4, 5)
    np.testing.assert_allclose(mean, heat.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_positions_of_a_heat_map_are_windows_of_the_image() -> None:
    """Without padding inside the model, exactly."""
    fields = {f"conv{n}": {"padding": 0, "features": 8} for n in range(1, 6)}
    fields |= {f"fc{n}": {"features": 8} for n in (6, 7)}
    size = VARIANTS["caffe"].input_size
    model = create_model("caffe", 5, layers=fields)
    wide = create_model("caffe", 5, layers=fields, fully_convolutional=True)
    step = 32  # pixels between positions: strides 4, 2, 2, 2
    images = np.random.default_rng(0).normal(size=(1, size + step, size, 3)).astype(np.float32)
    variables = random_variables(model)
    heat, _ = heat_map_and_logits(wide, variables, images)
    assert heat.shape == (1, 2, 1, 5)
    ordinary = jax.jit(model.apply)
    for row in range(2):
        window = images[:, row * step : row * step + size]
        np.testing.assert_allclose(heat[:, row, 0], ordinary(variables, window), rtol=1e-4)
