"""Changes to a row: which layers stand after them, and which parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import AlexNet, create_model, create_spec, layers
from alexnet_jax.models.summary import layer_table, totals
from alexnet_jax.models.variants import VARIANTS


def kinds(spec: layers.ModelSpec) -> list[str]:
    """The layers in order, in a short writing."""
    return [getattr(layer, "name", "") or type(layer).__name__ for layer in spec.layers]


def test_none_leaves_the_row_as_it_is() -> None:
    assert create_spec("paper", init=None, without=None, layers={}) == VARIANTS["paper"]


def test_no_response_norm_takes_the_spatial_one_along() -> None:
    """Configuration 148 has no norm layer at all."""
    before, after = kinds(VARIANTS["paper"]), kinds(create_spec("paper", response_norm="none"))
    assert [name for name in before if "norm" not in name] == after
    assert len(before) - len(after) == 3


def test_a_response_norm_after_each_convolutions_relu() -> None:
    net = create_spec("paper_text", response_norm="all")
    names = kinds(net)
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        at = names.index(layer)
        assert names[at + 1 : at + 3] == ["Activation", f"{layer}_norm"]
    assert sum("norm" in name for name in names) == 5
    norms = [layer for layer in net.layers if isinstance(layer, layers.LocalResponseNorm)]
    assert {norm.alpha for norm in norms} == {1e-4}
    assert {norm.groups for norm in norms} == {2}


def test_non_overlapping_pools_keep_the_size_of_fc6() -> None:
    """Configuration 147: 28, 26, 13, 11 and 6 pixels; 686,891,552 multiply-adds."""
    rows = layer_table(create_spec("paper", pooling="non_overlapping"), 1000)
    sides = [row.output[0] for row in rows if len(row.output) == 3]
    assert sides == [55, 28, 26, 13, 13, 13, 11, 6]
    assert totals(rows)["parameters"] == 60_965_224
    assert totals(rows)["macs"] == 686_891_552


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "abs_tanh"])
def test_another_function(kind: str) -> None:
    net = create_spec("paper", activation=kind)
    found = {layer.kind for layer in net.layers if isinstance(layer, layers.Activation)}
    pools = {layer.kind for layer in net.layers if isinstance(layer, layers.Pool)}
    assert found == {kind}
    assert pools == ({"average"} if kind == "abs_tanh" else {"max"})


def test_dropout_is_set_or_taken_out() -> None:
    before = [x for x in VARIANTS["caffe"].layers if isinstance(x, layers.Dropout)]
    after = create_spec("caffe", dropout=0.2).layers
    assert {x.rate for x in before} == {0.5}
    assert [dataclasses.replace(x, rate=0.2) for x in before] == [
        x for x in after if isinstance(x, layers.Dropout)
    ]
    without = create_spec("caffe", dropout=0.0).layers
    assert not any(isinstance(x, layers.Dropout) for x in without)
    assert len(after) - len(without) == 2


def test_a_convolution_goes_with_its_norms_and_function_but_not_its_pool() -> None:
    without = {
        "conv1": {"conv1", "norm1", "Activation"},
        "conv2": {"conv2", "Activation", "norm2", "spatial_norm2"},
        "conv4": {"conv4", "Activation"},
        "conv5": {"conv5", "Activation"},
    }
    before = kinds(VARIANTS["paper"])
    for name, gone in without.items():
        after = kinds(create_spec("paper", without=name))
        assert len(before) - len(after) == len(gone), name
        assert set(before) - set(after) == gone - {"Activation"}, name
        assert {"pool1", "pool2", "pool5"} <= set(after)


def test_without_the_first_convolution_the_second_sees_all_colors() -> None:
    conv2 = next(x for x in create_spec("paper", without="conv1").layers if "conv2" in repr(x))
    assert conv2.groups == 1


def test_fields_of_a_layer() -> None:
    rows = {
        "conv1": {"features": 32, "std": 0.5, "bias": None},
        "norm1": {"size": 9, "alpha": 0.1},
        "pool1": {"window": 2},
    }
    conv1, norm1, pool1, *_ = create_spec("paper", layers=rows).layers
    assert (conv1.features, conv1.size, conv1.init.std, conv1.init.bias) == (32, 11, 0.5, 0.0)
    assert (norm1.size, norm1.alpha, norm1.k) == (9, 0.1, 2.0)
    assert (pool1.window, pool1.stride) == (2, 2)


def test_a_std_makes_the_start_gaussian() -> None:
    conv1 = create_spec("torchvision", layers={"conv1": {"std": 0.5}}).layers[0]
    assert conv1.init == layers.Initializer("normal", 0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layers": {"conv9": {"features": 3}}}, "no layer 'conv9', only conv1, norm1"),
        ({"layers": {"conv1": {"window": 3}}}, "the layer conv1 has no 'window'"),
        ({"layers": {"pool1": {"std": 0.1}}}, "the layer pool1 has no 'std'"),
        ({"without": "conv7"}, "no convolution 'conv7' to take out, only conv1, conv2"),
    ],
)
def test_what_does_not_fit_the_row(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_spec("paper", **overrides)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"'papper' is not one of paper, .* Did you mean 'paper'"):
        create_model("papper")
    with pytest.raises(ValueError, match="initializer: there is no such key"):
        create_model("paper", initializer="text")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pooling": "overlapping"}, "pooling: 'overlapping' is not one of"),
        ({"response_norm": "some"}, "response_norm: 'some' is not one of"),
        ({"init": "kaimng"}, "Did you mean 'kaiming'"),
        ({"activation": "gelu"}, "activation: 'gelu' is not one of"),
        ({"dropout": 1.5}, "dropout: 1.5 is above"),
        ({"fully_convolutional": "maybe"}, "'maybe' is not True or False"),
        ({"num_classes": "ten"}, "num_classes: 'ten' is not a whole number"),
        ({"num_classes": None}, "num_classes: None is not a whole number"),
        ({"layers": {"conv1": {"features": 48.5}}}, "48.5 is not a whole number"),
        ({"layers": {"conv1": 48}}, "layers.conv1: is a group of keys"),
        ({"layers": ["conv1"]}, "layers: is a group of keys"),
        ({"layers": {"conv1": {"features": 97}}}, "97 maps that reach norm1 do not divide into 2"),
        ({"layers": {"norm1": {"groups": 7}}}, "96 maps that reach norm1 do not divide into 7"),
        ({"input_size": 32}, "has a 3 x 3 window, but only"),
        ({"dropout": 2, "init": "x"}, "(?s)dropout: 2.* is above.*init: 'x' is not one of"),
    ],
)
def test_what_is_wrong_is_told_when_a_net_is_made(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("paper", **overrides)


# ---- A heat map


def heat_map_of(model: AlexNet, variables: dict, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x, heat_map=True))(variables, images))


def test_a_checkpoints_parameters_give_a_heat_map_of_a_larger_picture() -> None:
    """Each place's logits are those of the ordinary net on the window of the picture it sees."""
    small = {"fc6": {"features": 16}, "fc7": {"features": 16}}
    model = create_model("torchvision", 5, layers=small, response_norm="none")
    wide = create_model("torchvision", 5, layers=small, fully_convolutional=True)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 288, 320, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    same = jax.eval_shape(wide.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, same)

    at_224 = images[:, :224, :224]
    np.testing.assert_allclose(
        jax.jit(wide.apply)(variables, at_224),
        jax.jit(model.apply)(variables, at_224),
        rtol=1e-4,
        atol=1e-6,
    )
    heat = heat_map_of(wide, variables, images)
    assert heat.shape == (1, 3, 4, 5)
    mean = jax.jit(wide.apply)(variables, images)
    np.testing.assert_allclose(mean, heat.mean((1, 2)), rtol=1e-5)


def test_a_heat_maps_places_are_windows_of_the_picture() -> None:
    """Without padding inside the net, exactly."""
    fields = {f"conv{n}": {"padding": 0, "features": 8} for n in range(1, 6)}
    fields |= {f"fc{n}": {"features": 8} for n in (6, 7)}
    overrides = {"layers": fields, "input_size": 227}
    model = create_model("caffe", 5, **overrides)
    wide = create_model("caffe", 5, **overrides, fully_convolutional=True)
    step = 32  # pixels from a place to the next: strides 4, 2, 2, 2
    images = np.random.default_rng(0).normal(size=(1, 227 + step, 227, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 227, 227, 3)))
    heat = heat_map_of(wide, variables, images)
    assert heat.shape == (1, 2, 1, 5)
    ordinary = jax.jit(model.apply)
    for place in range(2):
        window = images[:, place * step : place * step + 227]
        np.testing.assert_allclose(heat[:, place, 0], ordinary(variables, window), rtol=1e-4)


def test_locally_connected_layers_have_no_heat_map() -> None:
    with pytest.raises(ValueError, match="weights of local3 are for one size"):
        create_model("cifar_11", 10, fully_convolutional=True)
