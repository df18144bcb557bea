"""Configs of fine-tuning: what they take over, what they refuse, and the baseline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax import schema
from alexnet_jax.config import checks, command_line
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.fine_tuning import from_scratch, inherit
from alexnet_jax.errors import InputError
from alexnet_jax.models import create_spec, list_models, list_parameter_paths
from alexnet_jax.training import warm_start
from alexnet_jax.training.schedule import row_of
from alexnet_jax.weights import ModelFile

ROOT = Path(__file__).parents[2]
FINETUNE = f"--config={ROOT}/configs/finetune.py"
START = "--config.train.init_from=X"
SOURCE = {
    "model.name": "cifar_26",
    "model.num_classes": 12,
    "model.layers.conv1.features": 16,
    "model.layers.fc10.features": 12,
    "data.image_size": 36,
    "data.resize": "warp",
    "augment.mean": "given",
    "augment.channel_mean": (1.0, 2.0, 3.0),
    "augment.channel_std": (4.0, 5.0, 6.0),
    "augment.random_flip": False,
    "train.batch_size": 7,
    "train.init_from": "elsewhere",
}
TAKEN = [
    *("model.name", "model.layers.conv1.features", "data.image_size", "data.resize"),
    *("augment.mean", "augment.channel_mean", "augment.channel_std"),
]
Inherited = Callable[..., Command]


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> Inherited:
    """Returns (arguments, source) -> the command that starts from a model of the source config."""

    def parse(*args: str, source: dict[str, Any] | None = None) -> Command:
        found = ModelFile(config=SOURCE if source is None else source, params={})
        monkeypatch.setattr(warm_start, "read", lambda *_, **__: found)
        return inherit(command_line.parse(args))

    return parse


def values(command: Command) -> dict[str, Any]:
    return schema.flatten(command.config.to_dict())


def test_model_and_preprocessing_are_taken_over(inherited: Inherited) -> None:
    command = inherited(FINETUNE, START)
    assert command.errors == ()
    found, own = values(command), values(command_line.parse([FINETUNE, START]))
    assert {path: found[path] for path in TAKEN} == {path: SOURCE[path] for path in TAKEN}
    assert {path for path, value in found.items() if value != own.get(path)} == set(TAKEN)


def test_an_output_layer_that_is_taken_keeps_its_size(inherited: Inherited) -> None:
    found = values(inherited(FINETUNE, START, "--config.train.init_new_head=False"))
    assert found["model.layers.fc10.features"] == 12


def test_keys_that_are_set_stay_where_they_agree_or_do_not_matter(inherited: Inherited) -> None:
    command = inherited(
        *(FINETUNE, START, "--config.data.resize=warp", "--config.model.dropout=0.1"),
        "--config.model.layers.conv1.features=8",
    )
    assert command.errors == ()
    found = values(command)
    assert found["model.dropout"] == 0.1
    assert found["model.layers.conv1.features"] == 8


def test_contradictions_are_listed_with_both_values(inherited: Inherited) -> None:
    set_here = ("--config.data.image_size=40", "--config.augment.mean=channel")
    (error,) = inherited(FINETUNE, START, *set_here).errors
    assert error.startswith("train.init_from: ")
    assert "data.image_size: 36 there, 40 here" in error
    assert "augment.mean: 'given' there, 'channel' here" in error


def test_another_model_takes_nothing_over(inherited: Inherited) -> None:
    args = (FINETUNE, START, "--config.model.name=cifar_18", "--config.data.image_size=40")
    assert values(inherited(*args)) == values(command_line.parse(args))


def test_the_config_of_a_run_stays_as_it_is(
    inherited: Inherited, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is resumed even where its source is gone."""
    command = inherited(FINETUNE, START)
    (tmp_path / "config.json").write_text(json.dumps(command.config.to_dict()))

    def fail(*_: object, **__: object) -> None:
        raise InputError("gone")

    monkeypatch.setattr(warm_start, "read", fail)
    again = inherit(command_line.parse([f"--workdir={tmp_path}"]))
    assert again.errors == ()
    assert again.config.to_dict() == command.config.to_dict()
    (error,) = inherit(command_line.parse([FINETUNE, START])).errors
    assert error == "train.init_from: gone"


@pytest.mark.parametrize("argument", ["", ":frozen", ":full"])
def test_the_config_fits_every_model(inherited: Inherited, argument: str) -> None:
    for name in list_models():
        spec = create_spec(name)
        source = {
            "model.name": name,
            "data.image_size": spec.input_size,
            "data.channels": spec.channels,
        }
        command = inherited(FINETUNE + argument, START, source=source)
        assert [*command.errors, *checks.errors(command, 2, 1)] == [], name
        rows = command.config.optimizer.rates.to_dict()
        patterns = {row: options["pattern"] for row, options in rows.items()}
        rates = {
            path: rows[row_of(patterns, path) or ""]["rate"] for path in list_parameter_paths(spec)
        }
        head, lower = rates[f"Dense/{spec.output_layer.name}/kernel"], rates["Conv/conv1/kernel"]
        factors = {"": (0.01, 0.001), ":frozen": (0.01, 0.0), ":full": (0.001, 0.001)}
        assert (head, lower) == factors[argument]


def test_all_rates_follow_that_of_the_weights(inherited: Inherited) -> None:
    rates = inherited(FINETUNE, START, "--config.optimizer.rates.weights.rate=0.1").config
    found = {name: row["rate"] for name, row in rates.optimizer.rates.to_dict().items()}
    assert found == pytest.approx(
        {"head": 1.0, "biases_and_norms": 0.2, "norms": 0.01, "weights": 0.1, "biases": 0.02}
    )


RECIPE = {  # of a run that was fine-tuned itself: its lower layers learned slowly
    "optimizer.rates.head.pattern": "/fc10/",
    "optimizer.rates.head.rate": 0.3,
    "optimizer.rates.head.schedule": "dexp",
    "optimizer.rates.weights.rate": 0.1,
}


@pytest.mark.parametrize(("recipe", "rate"), [({}, 0.01), (RECIPE, 0.3)])
def test_the_baseline_trains_every_layer_as_the_last_one_of_the_source(
    recipe: dict[str, Any], rate: float, inherited: Inherited
) -> None:
    """Of a weight file nothing is known: there the output layer is that of the run itself."""
    args = (f"{FINETUNE}:frozen", START, "--config.train.scratch_baseline")
    command = inherited(*args, source=SOURCE | recipe)
    scratch = from_scratch(command.config)
    assert checks.errors(Command(scratch, Path(), "train"), 2, 1) == []
    rows = scratch.optimizer.rates.to_dict()
    patterns = {name: row["pattern"] for name, row in rows.items()}
    used = {row_of(patterns, path) for path in list_parameter_paths(create_spec("cifar_26"))}
    assert {(rows[name]["rate"], rows[name]["schedule"]) for name in used} == {(rate, "dexp")}
    before, after = (schema.flatten(tree.to_dict()) for tree in (command.config, scratch))
    changed = {path for path in before if before[path] != after.get(path)}
    assert {path for path in changed if not path.startswith("optimizer.rates")} == {
        *("train.init_from", "train.init_new_head", "train.scratch_baseline"),
    }
