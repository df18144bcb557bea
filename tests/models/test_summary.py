"""The layer table against the published arithmetic, and against the models that Flax builds."""

import io
import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from alexnet_jax.models import (
    create_model,
    create_spec,
    parameter_paths,
    parameter_shapes,
    summary,
)
from alexnet_jax.models.layers import (
    MAX_INPUT_SIZE,
    NUM_CLASSES,
    Conv,
    Dense,
    ModelSpec,
    Pool,
    TooSmallError,
)
from alexnet_jax.models.variants import VARIANTS

GOLDEN = Path(__file__).parents[1] / "golden"
# By hand from the geometry: {layer: [output, weights, biases, multiply-adds]} and totals
TABLES = json.loads((GOLDEN / "layer_tables.json").read_text())
PAPER = TABLES["paper"]["layers"]
TOTALS = {
    "weights": 60_954_656,
    "biases": 60_965_224 - 60_954_656,
    "parameters": 60_965_224,
    "macs": 724_406_816,
}

CASES: list[tuple[str, str, dict[str, Any]]] = [  # table, model, overrides
    ("paper", "paper", {}),
    ("paper", "paper_text", {}),
    ("paper", "caffe", {}),  # on 227 pixels without padding
    ("paper", "caffenet", {}),
    ("ungrouped", "ungrouped", {}),
    ("torchvision", "torchvision", {}),
    ("torchvision", "one_tower", {}),
    # the widths that "One weird trick" prints, 384 for conv4
    ("owt_footnote", "torchvision", {"layers": {"conv4": {"features": 384}}}),
    ("half", "half", {}),
    ("six_conv", "six_conv", {}),
    ("zfnet", "zfnet", {}),
    ("non_overlapping", "paper", {"pooling": "non_overlapping"}),
    *((name, name, {}) for name in ("cifar_26", "cifar_19", "cifar_13", "cifar_11")),
    ("cifar_19", "cifar_18", {}),
]


@pytest.mark.parametrize(("table", "name", "overrides"), CASES)
def test_golden_table(table: str, name: str, overrides: dict[str, Any]) -> None:
    expected = TABLES[table]
    spec = create_spec(name, **overrides)
    rows = summary.layer_table(spec, 10 if name.startswith("cifar") else 1000)
    found = {row.name: [list(row.output), row.weights, row.biases, row.macs] for row in rows}
    assert found == expected["layers"]
    assert list(found) == list(expected["layers"])
    totals = summary.totals(rows)
    assert (totals["parameters"], totals["macs"]) == (expected["parameters"], expected["macs"])
    assert sum(math.prod(row.output) for row in rows if row.parameters) == expected["neurons"]


@pytest.mark.parametrize(
    ("name", "parameters", "running"),
    [
        ("half_tower", 16_630_440, 0),
        ("batchnorm", 62_399_480, 21_136),
        # a scale and a bias for each of 96 + 256 + 384 + 384 + 256 + 4096 + 4096 features
        ("groupnorm", 62_378_344 + 2 * 9_568, 0),
    ],
)
def test_golden_totals(name: str, parameters: int, running: int) -> None:
    shapes = _shapes(name, 1000)[0]
    found = {kind: sum(x.size for x in jax.tree.leaves(tree)) for kind, tree in shapes.items()}
    assert found == {"params": parameters} | ({"batch_stats": running} if running else {})
    assert summary.totals(summary.layer_table(VARIANTS[name], 1000))["parameters"] == parameters


def test_towers_without_communication_have_their_own_widths() -> None:
    """Configuration 150: 160, 4096 and 2048 a tower in conv2, fc6 and fc7; all grouped but fc8."""
    shapes = _shapes("no_communication", 1000)[0]["params"]
    assert {layer: row["kernel"].shape for layer, row in shapes.items()} == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 320),
        "conv3": (3, 3, 160, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
        "fc6": (4608, 8192),
        "fc7": (4096, 4096),
        "fc8": (4096, 1000),
    }


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_flax_agrees_with_the_table(name: str) -> None:
    """The shape of each parameter, their number, and the shape of every named layer's output."""
    variables, sown = _shapes(name, 7)
    rows = summary.layer_table(VARIANTS[name], 7)
    shapes = parameter_shapes(VARIANTS[name], 7)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables["params"])
    assert {r.name: r.parameters for r in rows if r.parameters} == {
        layer: sum(x.size for x in jax.tree.leaves(arrays))
        for layer, arrays in variables["params"].items()
    }
    outputs = {layer: shapes[0].shape for layer, shapes in sown.items()}
    expected = {f"{row.name}_output": (2, *row.output) for row in rows}
    assert expected.items() <= outputs.items()


def _shapes(name: str, num_classes: int) -> tuple[dict, dict]:
    """Shapes of the variables and of the named layers' outputs for a batch of two."""
    model = create_model(name, num_classes)
    size, channels = model.spec.input_size, model.spec.channels
    images = jnp.zeros((2, size, size, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    _, state = jax.eval_shape(
        lambda variables: model.apply(variables, images, mutable="intermediates"), variables
    )
    return variables, state["intermediates"]


@pytest.mark.parametrize(("name", "smallest"), [("torchvision", 63), ("paper", 64), ("caffe", 67)])
def test_smallest_input(name: str, smallest: int) -> None:
    assert summary.smallest_input(VARIANTS[name]) == smallest
    summary.layer_table(VARIANTS[name], 2, smallest)
    with pytest.raises(TooSmallError):
        summary.layer_table(VARIANTS[name], 2, smallest - 1)


def test_smallest_input_is_cheap_for_the_largest_fields() -> None:
    huge = {f"conv{n}": {"kernel_size": 256, "stride": 256} for n in range(1, 6)}
    started = time.perf_counter()
    assert summary.smallest_input(create_spec("paper", layers=huge)) == MAX_INPUT_SIZE + 1
    assert time.perf_counter() - started < 1


def test_paths_of_parameters() -> None:
    spec = create_spec("batchnorm")
    paths = parameter_paths(spec, parameter_shapes(spec))
    assert paths["conv1"] == {"kernel": "Conv/conv1/kernel", "bias": "Conv/conv1/bias"}
    assert paths["fc8"]["bias"] == "Dense/fc8/bias"
    assert paths["fc8_norm"] == {
        "scale": "BatchNorm/fc8_norm/scale",
        "bias": "BatchNorm/fc8_norm/bias",
    }


@pytest.mark.parametrize("name", ["paper", "batchnorm"])
def test_number_of_outputs(name: str) -> None:
    assert create_model(name, 10).num_outputs == 10
    assert create_model(name, 10, layers={"fc8": {"features": 12}}).num_outputs == 12


# By hand: 11; pool1 11 + 2 * 4; conv2 19 + 4 * 8; the within-channel norm 4 * 8 more; and so on
FIELDS = {
    "paper_text": (11, 19, 51, 67, 99, 131, 163, 195),
    "paper": (11, 19, 51, 99, 131, 163, 195, 227),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields(name: str) -> None:
    rows = summary.layer_table(VARIANTS[name], 1000)
    assert tuple(row.receptive_field for row in rows) == (*FIELDS[name], None, None, None)


def test_groups_that_do_not_divide_are_named() -> None:
    spec = create_spec("paper", layers={"conv2": {"features": 255}})
    with pytest.raises(ValueError, match="255 features"):
        summary.layer_table(spec, 10)


def test_another_input_size() -> None:
    rows = {row.name: row.output for row in summary.layer_table(VARIANTS["paper"], 10, 67)}
    assert rows["conv1"] == (15, 15, 96)
    assert rows["pool5"] == (1, 1, 256)
    assert rows["fc8"] == (10,)


def test_an_input_that_is_too_small_names_the_layer() -> None:
    spec = ModelSpec(9, 1, (Pool("a"), Conv("b", 2, 3), Pool("c"), Dense("d", NUM_CLASSES)))
    with pytest.raises(TooSmallError, match=r"layers\.c: "):
        summary.layer_table(spec, 10)


def test_json_holds_the_table() -> None:
    rows = summary.layer_table(VARIANTS["paper"], 1000)
    found = json.loads(json.dumps(summary.as_json(rows)))
    assert {name: found[name] for name in TOTALS} == TOTALS
    assert found["layers"][0] == {
        "name": "conv1",
        "output": [55, 55, 96],
        "weights": 34_848,
        "biases": 96,
        "macs": 105_415_200,
        "parameters": 34_944,
        "receptive_field": 11,
    }
    assert len(found["layers"]) == len(PAPER)


def test_the_table_for_a_terminal_shows_every_number() -> None:
    rows = summary.layer_table(VARIANTS["paper"], 1000)
    text = io.StringIO()
    Console(file=text, width=120).print(summary.as_table(rows, "paper"))
    lines = {line.split()[0]: f"{line} " for line in text.getvalue().splitlines() if line.strip()}
    assert {*PAPER, "total"} <= lines.keys()
    assert " 11px " in lines["conv1"]
    assert "55 x 55 x 96" in lines["conv1"]
    for number in (34_848, 96, 34_944, 105_415_200):
        assert f" {number:,} " in lines["conv1"]
    for number in TOTALS.values():
        assert f" {number:,} " in lines["total"]
