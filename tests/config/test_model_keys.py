"""A command takes over the keys of a model and may not contradict them."""

from pathlib import Path

import pytest

from alexnet_jax import schema
from alexnet_jax.config import command_line
from alexnet_jax.config.model_keys import take_over
from alexnet_jax.errors import InputError
from alexnet_jax.weights.model_file import MODEL, PREPROCESSING

QUICKSTART = f"--config={Path(__file__).parents[2]}/configs/quickstart.py"
OWN = command_line.parse(
    [
        *(QUICKSTART, "--config.seed=7", "--config.augment.draw_first_batch=False"),
        *("--config.model.layers.conv1.features=16", "--config.augment.scale=0.5"),
    ]
).config.to_dict()
GIVEN = (
    *("--config.job=evaluate", "--workdir=file.npz", "--config.data.threads=3"),
    "--config.optimizer.rates.x.pattern=fc",
)


def test_the_models_keys_are_taken_and_the_others_kept() -> None:
    command = command_line.parse(GIVEN)
    config = take_over(command, OWN, MODEL)
    before, found = (schema.flatten(one.to_dict()) for one in (command.config, config))
    own = schema.flatten(OWN)
    for path, value in found.items():
        of_model = path.startswith(("model.", "augment.")) and path != "augment.draw_first_batch"
        of_model = of_model or path in ("data.image_size", "data.channels", "data.resize")
        assert value == (own if of_model else before)[path], path
    assert found["model.layers.conv1.features"] == 16
    assert list(config.optimizer.rates.to_dict()) == ["x", "norms", "weights", "biases"]
    taken = take_over(command, OWN, PREPROCESSING)
    assert (taken.model.name, taken.data.channels, taken.augment.scale) == ("paper", 1, 0.5)
    assert taken.augment.random_flip


def test_the_same_values_are_no_contradiction() -> None:
    given = (*GIVEN, QUICKSTART, "--config.augment.scale=0.5", "--config.seed=3")
    same = (*given, "--config.model.layers.conv1.features=16", "--config.model.lrn=None")
    config = take_over(command_line.parse(same), OWN, MODEL)
    assert (config.seed, config.model.layers.conv1.features) == (3, 16)


def test_all_contradictions_are_listed_with_both_values() -> None:
    """Those of a config file too, but no key that neither it nor the command line sets."""
    wrong = ("--config.model.layers.conv2.features=8", "--config.data.resize=warp")
    with pytest.raises(InputError) as caught:
        take_over(command_line.parse((*GIVEN, *wrong, "--config.augment.scale=1")), OWN, MODEL)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "augment.scale: 0.5 there, 1.0 here",
        "data.resize: 'crop' there, 'warp' here",
        "model.layers.conv2.features: None there, 8 here",
    ]
    paper = f"--config={Path(__file__).parents[2]}/configs/paper.py"
    with pytest.raises(InputError, match=r"model\.name: 'digits' there, 'paper' here"):
        take_over(command_line.parse((*GIVEN, paper)), OWN, MODEL)
