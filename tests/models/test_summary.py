"""The layer table against the published arithmetic, and against the nets that Flax builds."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from alexnet_jax.models import create_model, summary
from alexnet_jax.models.layers import Conv, Dense, Network, Pool
from alexnet_jax.models.variants import NETWORKS

# By hand from the geometry: output, weights, biases, multiply-adds
PAPER = {
    "conv1": ((55, 55, 96), 34_848, 96, 105_415_200),
    "pool1": ((27, 27, 96), 0, 0, 0),
    "conv2": ((27, 27, 256), 307_200, 256, 223_948_800),
    "pool2": ((13, 13, 256), 0, 0, 0),
    "conv3": ((13, 13, 384), 884_736, 384, 149_520_384),
    "conv4": ((13, 13, 384), 663_552, 384, 112_140_288),
    "conv5": ((13, 13, 256), 442_368, 256, 74_760_192),
    "pool5": ((6, 6, 256), 0, 0, 0),
    "fc6": ((4096,), 37_748_736, 4_096, 37_748_736),
    "fc7": ((4096,), 16_777_216, 4_096, 16_777_216),
    "fc8": ((1000,), 4_096_000, 1_000, 4_096_000),
}
TOTALS = {
    "weights": 60_954_656,
    "biases": 60_965_224 - 60_954_656,
    "parameters": 60_965_224,
    "macs": 724_406_816,
}
NEURONS = 659_272  # of conv and dense layers

# The two halves of conv2, conv4 and conv5 see their own maps alone.
KERNELS = {
    "conv1": (11, 11, 3, 96),
    "conv2": (5, 5, 48, 256),
    "conv3": (3, 3, 256, 384),
    "conv4": (3, 3, 192, 384),
    "conv5": (3, 3, 192, 256),
    "fc6": (9216, 4096),
    "fc7": (4096, 4096),
    "fc8": (4096, 1000),
}


def caffe_geometry() -> Network:
    """The same layers on 227 pixels without padding; every number stays."""
    paper = NETWORKS["paper"]
    layers = (dataclasses.replace(paper.layers[0], padding=0), *paper.layers[1:])
    return dataclasses.replace(paper, input_size=227, layers=layers)


@pytest.mark.parametrize(
    "network",
    [NETWORKS["paper"], NETWORKS["paper_text"], caffe_geometry()],
    ids=["paper", "paper_text", "227"],
)
def test_golden_table(network: Network) -> None:
    rows = summary.layer_table(network, 1000)
    assert {r.name: (r.output, r.weights, r.biases, r.macs) for r in rows} == PAPER
    assert [row.name for row in rows] == list(PAPER)
    assert summary.totals(rows) == TOTALS
    neurons = 0
    for row in rows:
        if row.parameters:
            height, width = row.output[:2] if len(row.output) == 3 else (1, 1)
            neurons += height * width * row.output[-1]
    assert neurons == NEURONS


@pytest.mark.parametrize("name", ["paper", "paper_text"])
def test_golden_parameter_shapes(name: str) -> None:
    params = _shapes(name, 1000)[0]
    assert {layer: row["kernel"].shape for layer, row in params.items()} == KERNELS
    assert {layer: row["bias"].shape for layer, row in params.items()} == {
        layer: shape[-1:] for layer, shape in KERNELS.items()
    }


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_flax_agrees_with_the_table(name: str) -> None:
    """Numbers of values of each layer, and the shape of every named layer's output."""
    params, sown = _shapes(name, 7)
    rows = summary.layer_table(NETWORKS[name], 7)
    assert {r.name: (r.weights, r.biases) for r in rows if r.parameters} == {
        layer: (row["kernel"].size, row["bias"].size) for layer, row in params.items()
    }
    outputs = {layer: shapes[0].shape for layer, shapes in sown.items()}
    expected = {f"{row.name}_output": (2, *row.output) for row in rows}
    assert expected.items() <= outputs.items()


def _shapes(name: str, num_classes: int) -> tuple[dict, dict]:
    """Shapes of the parameters and of the named layers' outputs for a batch of two."""
    model = create_model(name, num_classes)
    size, channels = model.network.input_size, model.network.channels
    images = jnp.zeros((2, size, size, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    _, state = jax.eval_shape(
        lambda params: model.apply({"params": params}, images, mutable="intermediates"),
        variables["params"],
    )
    return variables["params"], state["intermediates"]


def test_another_picture_size() -> None:
    rows = {row.name: row.output for row in summary.layer_table(NETWORKS["paper"], 10, 67)}
    assert rows["conv1"] == (15, 15, 96)
    assert rows["pool5"] == (1, 1, 256)
    assert rows["fc8"] == (10,)


def test_a_picture_that_vanishes_names_the_layer() -> None:
    network = Network(9, 1, (Pool("a"), Conv("b", 2, 3), Pool("c"), Dense("d", None)))
    with pytest.raises(summary.TooSmallError, match=r"c has a 3 x 3 window, but only 2 x 2 reach"):
        summary.layer_table(network, 10)


def test_json_holds_the_table() -> None:
    rows = summary.layer_table(NETWORKS["paper"], 1000)
    found = json.loads(json.dumps(summary.as_json(rows)))
    assert {name: found[name] for name in TOTALS} == TOTALS
    assert found["layers"][0] == {
        "name": "conv1",
        "output": [55, 55, 96],
        "weights": 34_848,
        "biases": 96,
        "macs": 105_415_200,
        "parameters": 34_944,
    }
    assert len(found["layers"]) == len(PAPER)


def test_the_terminals_table_shows_every_number() -> None:
    rows = summary.layer_table(NETWORKS["paper"], 1000)
    text = io.StringIO()
    Console(file=text, width=120).print(summary.as_table(rows, "paper"))
    lines = {line.split()[1]: line for line in text.getvalue().splitlines() if "│" in line}
    assert lines.keys() == {*PAPER, "total"}
    assert "55 x 55 x 96" in lines["conv1"]
    for number in (34_848, 96, 34_944, 105_415_200):
        assert f" {number:,} " in lines["conv1"]
    for number in TOTALS.values():
        assert f" {number:,} " in lines["total"]
