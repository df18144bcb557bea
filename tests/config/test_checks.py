from pathlib import Path

import pytest
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config import checks, command_line
from alexnet_jax.config.defaults import DURATIONS, SCHEMA
from alexnet_jax.models import layers, variants

ROOT = Path(__file__).parents[2]
QUICKSTART = "configs/quickstart.py"


def config_of(file: str, *overrides: str) -> ConfigDict:
    words = [f"--config={ROOT}/{file}", *(f"--config.{override}" for override in overrides)]
    command = command_line.parse(["alexnet_jax", *words])
    assert command.mistakes == ()
    return command.config


def cross_field_errors(
    file: str, *overrides: str, devices: int = 2, processes: int = 1
) -> list[str]:
    return checks.cross_field_errors(config_of(file, *overrides), devices, processes)


def test_the_defaults_are_right_values_and_contradict_nothing() -> None:
    config = ConfigDict(schema.defaults(SCHEMA))
    assert checks.cross_field_errors(config, num_devices=2) == []
    for path, key in schema.keys(SCHEMA):
        value, mistake = schema.check(key, key.default)
        assert (value, mistake) == (key.default, ""), path
        assert key.doc.endswith("."), path
    assert {path for path in DURATIONS if schema.find(SCHEMA, path)} == set(DURATIONS)


RATES = "optimizer.rates"
STEP = f"{RATES}.weights.schedule=step"
WRONG = [
    (["job=prepare", "prepare.root=x"], "prepare.output: names no folder for the prepared set."),
    (["job=prepare"], "prepare.root: names no folder to read from."),
    (
        ["job=prepare", "prepare.format=raw", "prepare.resize=short_side"],
        "prepare.resize: 'short_side' gives pictures of many sizes; 'raw' needs one.",
    ),
    (
        ["job=prepare", "prepare.splits=('train=a.txt', 'train=b.txt')"],
        "prepare.splits: ('train=a.txt', 'train=b.txt') does not name splits, each once.",
    ),
    (["job=prepare", "prepare.splits=()"], "prepare.splits: () does not name splits, each once."),
    (
        ["job=prepare", "prepare.splits=('my val',)"],
        "prepare.splits: 'my val' is not a name of letters, digits and _.",
    ),
    (
        ["job=prepare", "prepare.columns=('a', 'b', 'c')"],
        "prepare.columns: ('a', 'b', 'c') are more than a path's and a label's.",
    ),
    (["job=prepare", "prepare.pattern=("], "prepare.pattern: '(' is not a regular expression"),
    (["job=prepare", "prepare.pattern=a"], "prepare.pattern: 'a' has no group for the class"),
    (
        ["train.duration=soon"],
        "train.duration: 'soon' is not a duration: write a positive number and one unit of "
        "steps, epochs, examples, as in '90 epochs'.",
    ),
    (["checkpoint.every=0 steps"], "checkpoint.every: '0 steps' is not a duration"),
    (
        [STEP, f"{RATES}.weights.boundaries=('1 epoch', 'x')", f"{RATES}.weights.step_values=1,2"],
        f"{RATES}.weights.boundaries[1]: 'x' is not a duration",
    ),
    (["data.channels=3"], "data.channels: 3, but the net digits takes 1."),
    (["data.image_size=1"], "data.image_size: 1 pixels are fewer than the "),
    (
        [f"{RATES}.weights.pattern=("],
        f"{RATES}.weights.pattern: '(' is not a regular expression: missing )",
    ),
    (["optimizer.decay_pattern=["], "optimizer.decay_pattern: '[' is not a regular expression"),
    (
        [f"{RATES}.weight.rate=0.1"],
        f"{RATES}.weight.pattern: is empty: say which parameters take this row. "
        "Did you mean 'weights'?",
    ),
    (
        [STEP, f"{RATES}.weights.boundaries=('1 epoch',)"],
        f"{RATES}.weights.step_values: 0 rates for 1 boundaries",
    ),
    (
        [
            STEP,
            f"{RATES}.weights.boundaries=('2 epochs', '10 steps', '1 epoch')",
            f"{RATES}.weights.step_values=(1, 2, 3)",
            f"{RATES}.biases.schedule=step",
            f"{RATES}.biases.boundaries=('20 steps', '20 steps')",
            f"{RATES}.biases.step_values=(1, 2)",
        ],
        f"{RATES}.biases.boundaries: '20 steps' does not come after '20 steps'.",
    ),
    (
        [f"{RATES}.weights.pattern=conv./kernel"],
        f"{RATES}: no row's pattern matches the parameter fc6/kernel.",
    ),
    (
        ["augment.crop_group_size=32"],
        "augment.crop_group_size: runs of 32 do not divide the batch of 100 (train.batch_size).",
    ),
    (
        ["augment.crop_group_size=200"],
        "augment.crop_group_size: runs of 200 do not divide the batch",
    ),
    (
        ["augment.channel_mean=(33.3,)"],
        "augment.channel_mean: is not used, since augment.mean is 'image'. Did you mean "
        "augment.mean='given'?",
    ),
    (["augment.mean=given"], "augment.mean: 'given' needs augment.channel_mean, a gray level"),
    (
        ["augment.mean=given", "augment.channel_mean=(1.5, 2, 3)"],
        "augment.channel_mean: 3 numbers for 1 channels.",
    ),
    (["augment.channel_std=(58, 57)"], "augment.channel_std: 2 numbers for 1 channels."),
    (
        ["augment.mean=given", "augment.channel_mean=(0.1307,)"],
        "augment.channel_mean: pixels are 0..255, not 0..1. Did you mean (33.3285)?",
    ),
    (["augment.channel_std=(0.2,)"], "pixels are 0..255, not 0..1. Did you mean (51)?"),
    (["augment.channel_std=(0,)"], "augment.channel_std: no channel can be divided by 0."),
    (
        ["augment.channel_std=(50,)", "augment.scale=0.02"],
        "augment.channel_std: stands in place of augment.scale, which is 0.02: leave one of them "
        "out.",
    ),
    (["augment.color_noise_until=late"], "augment.color_noise_until: 'late' is not a duration"),
    (["parallel.devices=9"], "parallel.devices: 9 are asked for, 2 are here;"),
    (["train.batch_size=101"], "train.batch_size: 101 does not divide by the 2 devices"),
    (["evaluation.checkpoint=newest"], "'newest' is not 'best', 'latest' or a step number."),
    (["evaluation.checkpoint=-5"], "'-5' is not 'best', 'latest' or a step number."),
    (["evaluation.checkpoint=²"], "'²' is not 'best', 'latest' or a step number."),
    (
        ["evaluation.views=dense", "evaluation.scales=(24, 23)"],
        "evaluation.scales: 23 pixels are fewer than the 24 that the net digits takes.",
    ),
    (
        ["job=evaluate", "evaluation.views=ten_crops", "data.image_size=24"],
        "evaluation.views: the 'ten_crops' of pictures of 24 pixels are all the same for the net",
    ),
    (
        ["evaluation.views=dense", "model.name=cifar_11"],
        "evaluation.views: 'dense' needs a net that takes pictures of any size; local3 of cifar_11",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_a_contradiction_is_told(overrides: list[str], message: str) -> None:
    told = cross_field_errors(QUICKSTART, *overrides)
    assert [text for text in told if message in text], told


def test_all_contradictions_are_told_at_once() -> None:
    told = cross_field_errors(
        QUICKSTART,
        "train.duration=soon",
        "train.log_every=often",
        "data.channels=3",
        "data.image_size=1",
        f"{RATES}.weights.pattern=(",
        f"{RATES}.biases.pattern=[",
        "optimizer.decay_pattern=*",
        "parallel.strategy=tower",
        "parallel.devices=3",
        "train.batch_size=101",
        "evaluation.checkpoint=newest",
        devices=4,
    )
    assert sorted(text.partition(":")[0] for text in told) == [
        "data.channels",
        "data.image_size",
        "evaluation.checkpoint",
        "optimizer.decay_pattern",
        f"{RATES}.biases.pattern",
        f"{RATES}.weights.pattern",
        "parallel.strategy",
        "train.duration",
        "train.log_every",
    ]


def test_a_mean_and_deviations_that_are_given_contradict_nothing() -> None:
    """Torchvision's numbers in gray levels, and those of gray digits."""
    assert not cross_field_errors(
        PAPER,
        "augment.mean=given",
        "augment.channel_mean=(123.675, 116.28, 103.53)",
        "augment.channel_std=(58.395, 57.12, 57.375)",
    )
    shared = ("train.batch_size=96", "augment.crop_group_size=96", "augment.channel_std=(78.6,)")
    assert not cross_field_errors(QUICKSTART, *shared)


def test_color_noise_can_be_left_out_with_one_key() -> None:
    assert not cross_field_errors(PAPER, "augment.color_noise=none")


def test_boundaries_of_other_schedules_or_units_are_not_compared() -> None:
    boundaries = f"{RATES}.weights.boundaries=('2 epochs', '1 step', '3 epochs', '1 example')"
    assert (
        cross_field_errors(QUICKSTART, STEP, boundaries, f"{RATES}.weights.step_values=1,1,1,1")
        == []
    )
    assert (
        cross_field_errors(QUICKSTART, f"{RATES}.weights.boundaries=('2 epochs', '1 epoch')") == []
    )


@pytest.mark.parametrize(
    ("strategy", "devices", "asked", "shares"),
    [
        ("single", 4, None, 1),
        ("data", 1, None, 1),
        ("data", 4, None, 4),
        ("data", 4, 3, 3),
        ("tower", 2, None, 1),
        ("tower", 4, None, 2),
        ("tower", 8, 6, 3),
    ],
)
def test_the_batch_divides_by_the_devices_that_share_it(
    strategy: str, devices: int, asked: int | None, shares: int
) -> None:
    for batch_size in range(1, 13):
        told = cross_field_errors(
            QUICKSTART,
            f"parallel.strategy={strategy}",
            f"parallel.devices={asked}",
            f"train.batch_size={batch_size}",
            devices=devices,
        )
        assert bool(told) == (batch_size % shares != 0), (batch_size, told)


@pytest.mark.parametrize("devices", [1, 3, 5])
def test_towers_need_an_even_number_of_devices(devices: int) -> None:
    told = cross_field_errors(
        QUICKSTART, "parallel.strategy=tower", "train.batch_size=60", devices=devices
    )
    assert told == [
        f"parallel.strategy: 'tower' needs an even number of devices, not {devices}; on a CPU set "
        "parallel.cpu_devices=2."
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.accumulate=5"], "train.accumulate: the 64 examples of a device do not divide"),
        (
            ["parallel.strategy=stage", "parallel.micro_batches=6"],
            "parallel.micro_batches: 128 examples do not divide into 6 micro-batches.",
        ),
        (
            ["parallel.strategy=stage", "model.name=batchnorm"],
            "parallel.strategy: 'stage' has no batch norm over its micro-batches",
        ),
        (
            ["parallel.strategy=tower", "model.name=caffe", "model.layers.norm2.size=300"],
            "parallel.strategy: the window of norm2",
        ),
        (["parallel.devices=4"], "parallel.devices: 4 are asked for, 2 are here; a CPU has"),
    ],
)
def test_what_devices_cannot_share(overrides: list[str], told: str) -> None:
    (mistake,) = cross_field_errors("configs/paper.py", "train.batch_size=128", *overrides)
    assert mistake.startswith(told)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("job=prepare", "job: 'prepare' is done by one process; 2 are here. Start it without"),
        ("parallel.strategy=single", "parallel.strategy: 'single' uses one device of one process"),
        ("parallel.devices=2", "parallel.devices: 2 processes use all the 4 devices they have"),
    ],
)
def test_every_process_has_its_part(override: str, told: str) -> None:
    place = {"devices": 4, "processes": 2}
    mistakes = cross_field_errors(QUICKSTART, override, **place)
    assert [mistake for mistake in mistakes if mistake.startswith(told)]
    assert cross_field_errors(QUICKSTART, "job=evaluate", **place) == []


PAPER = "configs/paper.py"


def test_towers_need_a_net_that_has_two() -> None:
    """Nets without groups, or with a width that two towers cannot share, are refused."""
    tower, half = "parallel.strategy=tower", "model.name=half"
    odd = ("model.name=six_conv", "model.layers.conv6.features=255")
    assert cross_field_errors(PAPER, tower, half) == [
        "parallel.strategy: the net half has no layers of two groups to be its towers."
    ]
    assert cross_field_errors(PAPER, tower, *odd) == [
        "parallel.strategy: 2 devices cannot share the 255 features of conv6."
    ]
    for strategy in ("parallel.strategy=single", "parallel.strategy=data"):
        assert not cross_field_errors(PAPER, strategy, half)
        assert not cross_field_errors(PAPER, strategy, *odd)
    assert not cross_field_errors(PAPER, tower)


def test_a_picture_too_small_names_what_fits_and_who_takes_it() -> None:
    for name, size, smallest in (("paper", 60, 64), ("caffe", 63, 67), ("torchvision", 50, 63)):
        mistakes = cross_field_errors(PAPER, f"model.name={name}", f"model.input_size={size}")
        (mistake,) = mistakes
        assert mistake.startswith("model.layers.pool5: ")
        assert (
            f"The smallest picture that fits is {smallest} pixels wide; {size} pixels are"
            in mistake
        )
        takers = mistake.split(" are enough for ")[1].rstrip(".").split(", ")
        assert ("torchvision" in takers) == (size == 63)
        assert "cifar_26" in takers
        assert name not in takers


def test_all_that_does_not_fit_the_model_is_named_at_once() -> None:
    errors = cross_field_errors(
        PAPER,
        "model.remove_layer=conv8",
        "model.layers.conv9.features=3",
        "model.layers.pool1.k=3.0",
        "model.layers.conv1.window=3",
    )
    assert [error.partition(":")[0] for error in errors] == [
        "model.layers.conv9",
        "model.layers.conv1.window",
        "model.layers.pool1.k",
        "model.remove_layer",
    ]
    (error,) = cross_field_errors(PAPER, "model.layers.conv1.features=97")
    assert error.startswith("model.layers.norm1: ")


def test_a_picture_that_vanishes_on_its_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (layers.Conv("conv1", 4, 3), layers.Pool("pool1"), layers.Pool("pool2"))
    small = layers.ModelSpec(input_size=8, channels=1, layers=rows)  # 8, 6, 2 pixels
    monkeypatch.setitem(variants.VARIANTS, "small", small)  # type: ignore[misc]
    (mistake,) = cross_field_errors(QUICKSTART, "model.name=small")
    assert mistake.startswith("model.layers.pool2: ")
    assert "The smallest picture that fits is 9 pixels wide" in mistake
