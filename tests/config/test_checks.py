import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config import checks, command_line
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.defaults import JOBS, SCHEMA
from alexnet_jax.models import layers, variants

ROOT = Path(__file__).parents[2]
QUICKSTART, PAPER = "configs/quickstart.py", "configs/paper.py"


def errors_of(file: str, *overrides: str, devices: int = 2, processes: int = 1) -> list[str]:
    args = [f"--config={ROOT}/{file}", *(f"--config.{override}" for override in overrides)]
    command = command_line.parse(args)
    return [*command.errors, *checks.errors(command, devices, processes)]


def paths_of(errors: list[str]) -> list[str]:
    return sorted(error.partition(":")[0] for error in errors)


def test_the_defaults_are_valid_and_contradict_nothing() -> None:
    config = ConfigDict(schema.defaults(SCHEMA))
    assert checks.errors(Command(config, Path(), "train"), 2, 1) == []
    assert checks.useless_keys(config) == {}
    for path, key in schema.keys(SCHEMA):
        assert schema.check(key, key.default) == key.default, path
        assert key.doc.endswith("."), path


def test_every_number_has_bounds() -> None:
    for path, key in schema.keys(SCHEMA):
        for part in filter(None, (key, key.element)):
            if part.kind in (int, float) and not part.choices:
                assert -1e12 < part.low < part.high < 1e13, path


def test_the_jobs_are_the_modules_that_run() -> None:
    assert {"train", "evaluate", "estimate", "prepare", "profile_input", "summary"} <= set(JOBS)


RATES = "optimizer.rates"
STEP = f"{RATES}.weights.schedule=step"
CONTRADICTIONS = [
    (["job=prepare", "prepare.root=x"], "prepare.output"),
    (["job=prepare"], "prepare.root"),
    (["job=prepare", "prepare.format=raw", "prepare.resize=short_side"], "prepare.resize"),
    (["job=prepare", "prepare.splits=('train=a.txt', 'train=b.txt')"], "prepare.splits"),
    (["job=prepare", "prepare.splits=()"], "prepare.splits"),
    (["job=prepare", "prepare.splits=('my val',)"], "prepare.splits"),
    (["job=prepare", "prepare.input=list", "prepare.columns='a', 'b', 'c'"], "prepare.columns"),
    (["prepare.input=pattern", "prepare.pattern=("], "prepare.pattern"),
    (["job=prepare", "prepare.input=pattern", "prepare.pattern=a"], "prepare.pattern"),
    (["train.duration=soon"], "train.duration"),
    (["train.duration=1e308 epochs"], "train.duration"),
    (["checkpoint.every=0 steps"], "checkpoint.every"),
    ([STEP, f"{RATES}.weights.boundaries=('1 epoch', 'x')"], f"{RATES}.weights.boundaries"),
    (["model.name=digit"], "model.name"),
    (["model.layers.conv1.kernel_size=2147483648"], "model.layers.conv1.kernel_size"),
    (["data.channels=3"], "data.channels"),
    (["data.image_size=1"], "data.image_size"),
    (["data.threads=2147483648"], "data.threads"),
    (["data.source=folder", "data.root=gs://bucket/images"], "data.root"),
    (["prepare.output=s3://bucket/images"], "prepare.output"),
    ([f"{RATES}.weights.pattern=("], f"{RATES}.weights.pattern"),
    ([f"{RATES}.weights.pattern=a{{1,99999999999}}"], f"{RATES}.weights.pattern"),
    (["optimizer.decay_pattern=["], "optimizer.decay_pattern"),
    (["optimizer.decay_pattern=((.+)+)+!"], "optimizer.decay_pattern"),
    (["optimizer.momentum=1"], "optimizer.momentum"),
    (["augment.scale=0"], "augment.scale"),
    ([f"{RATES}.weight.rate=0.1"], f"{RATES}.weight.pattern"),
    ([f"{RATES}..pattern=kernel"], f"{RATES}..pattern"),
    ([STEP], f"{RATES}.weights.step_values"),
    ([STEP, f"{RATES}.weights.boundaries=('1 epoch',)"], f"{RATES}.weights.step_values"),
    (
        [STEP, f"{RATES}.weights.boundaries='1 epoch',", f"{RATES}.weights.step_values=-1,"],
        f"{RATES}.weights.step_values",
    ),
    (
        [STEP, f"{RATES}.weights.boundaries='9 steps', '9 steps'"],
        f"{RATES}.weights.boundaries",
    ),
    ([f"{RATES}.weights.pattern=conv./kernel"], RATES),
    (["augment.crop_group_size=32"], "augment.crop_group_size"),
    (["augment.crop_group_size=200"], "augment.crop_group_size"),
    (["augment.mean=given"], "augment.mean"),
    (["augment.mean=given", "augment.channel_mean=(1.5, 2, 3)"], "augment.channel_mean"),
    (["augment.channel_std=(58, 57)"], "augment.channel_std"),
    (["augment.mean=given", "augment.channel_mean=(0.1307,)"], "augment.channel_mean"),
    (["augment.channel_std=(0.2,)"], "augment.channel_std"),
    (["augment.channel_std=(0,)"], "augment.channel_std"),
    (["augment.channel_std=(50,)", "augment.scale=0.02"], "augment.channel_std"),
    (["augment.color_noise_until=late"], "augment.color_noise_until"),
    (["parallel.devices=9"], "parallel.devices"),
    (["parallel.strategy=single", "parallel.devices=2"], "parallel.devices"),
    (["train.batch_size=101"], "train.batch_size"),
    (["train.batch_size=2147483648"], "train.batch_size"),
    (["evaluation.checkpoint=newest"], "evaluation.checkpoint"),
    (["evaluation.checkpoint=-5"], "evaluation.checkpoint"),
    (["evaluation.checkpoint=²"], "evaluation.checkpoint"),
    (["evaluation.views=dense", "evaluation.scales=(24, 23)"], "evaluation.scales"),
    (["job=evaluate", "evaluation.views=ten_crops", "data.image_size=24"], "evaluation.views"),
    (["evaluation.views=dense", "model.name=cifar_11"], "evaluation.views"),
    (["job=estimate", "estimate.device=h100"], "parallel.devices"),
]


@pytest.mark.parametrize(("overrides", "path"), CONTRADICTIONS)
def test_a_contradiction_or_invalid_value_is_an_error(overrides: list[str], path: str) -> None:
    start = time.monotonic()
    errors = errors_of(QUICKSTART, *overrides)
    assert path in paths_of(errors), errors
    assert time.monotonic() - start < 5


EXTREME = ("1e308", "-1", "99999999999999999999999", "nan", "(1,)", "a{1,99999999999}", "((.+)+)+")


def test_no_value_of_any_key_raises_or_hangs() -> None:
    """Extreme values and the bounds themselves, each key in turn."""
    start = time.monotonic()
    for number, (path, key) in enumerate(schema.keys(SCHEMA)):
        row = "conv1" if path.startswith("model.") else "weights"
        bounds = [str(key.kind(key.high))] if key.kind in (int, float) and not key.choices else []
        for value in (EXTREME[number % len(EXTREME)], *bounds):
            errors = errors_of(QUICKSTART, f"{path.replace('<row>', row)}={value}")
            assert all(": " in error for error in errors)
    assert time.monotonic() - start < 60


USELESS = [
    ("data.root=x", "data.source=folder"),
    ("data.name=mnist", "data.source=tfds"),
    ("data.holdout=0.2", "data.source=folder"),
    ("prepare.columns='a',", "prepare.input=list"),
    ("prepare.pattern=(.)b", "prepare.input=pattern"),
    ("augment.channel_mean=33.3,", "augment.mean=given"),
    ("augment.color_noise_std=0.2", "augment.color_noise=code"),
    ("augment.color_noise_until=1 epoch", "augment.color_noise=text"),
    ("train.init_layers=Conv", "train.init_from=x"),
    ("train.init_new_head=True", "train.init_from=x"),
    ("train.scratch_baseline=True", "train.init_from=x"),
    (f"{RATES}.weights.num_stages=3", f"{RATES}.weights.schedule=dexp"),
    ("optimizer.plateau.patience=3", f"{RATES}.biases.schedule=plateau"),
    ("evaluation.scales=28,", "evaluation.views=dense"),
    ("parallel.micro_batches=2", "parallel.strategy=stage"),
]


@pytest.mark.parametrize(("override", "needed"), USELESS)
def test_a_key_without_effect_is_an_error(override: str, needed: str) -> None:
    path = override.partition("=")[0]
    constant = f"{RATES}.weights.schedule=constant"
    before = [] if "weights" in needed else [constant]
    without = [constant, *before, override]
    assert path in paths_of(errors_of(QUICKSTART, *without))
    assert path not in paths_of(errors_of(QUICKSTART, *before, override, needed))


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ([f"{RATES}.weights.boundaries='1 epoch',"], f"{RATES}.weights.boundaries"),
        ([f"{RATES}.weights.step_values=1,"], f"{RATES}.weights.step_values"),
        ([f"{RATES}.extra.pattern=conv9"], f"{RATES}.extra"),
        ([f"{RATES}.norms.rate=0.1"], f"{RATES}.norms"),  # the model has none
        (["optimizer.decay_pattern=conv9"], "optimizer.decay_pattern"),
        (["optimizer.decay_pattern=fc", "optimizer.weight_decay=0"], "optimizer.decay_pattern"),
        (
            ["augment.mean=none", "augment.mean_examples=9"],
            "augment.mean_examples",
        ),
        (["augment.random_crop=False", "augment.crop_group_size=5"], "augment.crop_group_size"),
        (["prepare.format=raw", "prepare.quality=90"], "prepare.quality"),
        (["job=predict", "evaluation.views=ten_crops"], "evaluation.views"),
        (["job=features", "evaluation.views=ten_crops"], "evaluation.views"),
    ],
)
def test_more_keys_without_effect(overrides: list[str], path: str) -> None:
    assert paths_of(errors_of(QUICKSTART, *overrides)) == [path]


def test_what_the_command_line_makes_useless_in_a_file_is_no_error(tmp_path: Path) -> None:
    assert not errors_of(PAPER, "augment.color_noise=none")  # the file sets color_noise_until
    assert not errors_of(PAPER, "model.remove_layer=conv1")  # it has rows for conv1
    assert not errors_of(PAPER, "optimizer.weight_decay=0")
    for job in JOBS:
        needed = {"prepare": ("prepare.root=x", "prepare.output=y")}.get(job, ())
        assert not errors_of(PAPER, f"job={job}", *needed)
    (tmp_path / "file.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'evaluation': {'scales': (256,)}})\n"
    )
    command = command_line.parse([f"--config={tmp_path}/file.py"])
    assert paths_of(checks.errors(command, 2, 1)) == ["evaluation.scales"]


def test_all_errors_are_returned_at_once() -> None:
    errors = errors_of(
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
        "evaluation.checkpoint=newest",
        devices=4,
    )
    assert paths_of(errors) == [
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


def test_given_means_and_stds_contradict_nothing() -> None:
    """Torchvision's numbers as pixel values, and those of grayscale digits."""
    assert not errors_of(
        PAPER,
        "augment.mean=given",
        "augment.channel_mean=(123.675, 116.28, 103.53)",
        "augment.channel_std=(58.395, 57.12, 57.375)",
    )
    shared = ("train.batch_size=96", "augment.crop_group_size=96", "augment.channel_std=(78.6,)")
    assert not errors_of(QUICKSTART, *shared)


def test_boundaries_of_different_units_are_not_compared() -> None:
    boundaries = f"{RATES}.weights.boundaries=('2 epochs', '1 step', '3 epochs', '1 example')"
    assert not errors_of(PAPER, STEP, boundaries, f"{RATES}.weights.step_values=1,1,1,1")


@pytest.mark.parametrize(
    ("strategy", "devices", "requested", "shares"),
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
    strategy: str, devices: int, requested: int | None, shares: int
) -> None:
    for batch_size in range(1, 13):
        errors = errors_of(
            QUICKSTART,
            f"parallel.strategy={strategy}",
            f"parallel.devices={requested}",
            f"train.batch_size={batch_size}",
            devices=devices,
        )
        assert bool(errors) == (batch_size % shares != 0), (batch_size, errors)


@pytest.mark.parametrize("devices", [1, 3, 5])
def test_towers_need_an_even_number_of_devices(devices: int) -> None:
    overrides = ("parallel.strategy=tower", "train.batch_size=60")
    assert paths_of(errors_of(QUICKSTART, *overrides, devices=devices)) == ["parallel.strategy"]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["train.accumulate=5"], "train.accumulate"),
        (["parallel.strategy=stage", "parallel.micro_batches=6"], "parallel.micro_batches"),
        (["parallel.strategy=stage", "model.name=batchnorm"], "parallel.strategy"),
        (
            ["parallel.strategy=tower", "model.name=caffe", "model.layers.norm2.size=300"],
            "parallel.strategy",
        ),
        (["parallel.strategy=tower", "model.name=half"], "parallel.strategy"),
        (
            ["parallel.strategy=tower", "model.name=six_conv", "model.layers.conv6.features=255"],
            "parallel.strategy",
        ),
        (["parallel.strategy=hybrid", "model.name=no_communication"], "parallel.strategy"),
        (["parallel.devices=4"], "parallel.devices"),
    ],
)
def test_what_the_devices_cannot_share(overrides: list[str], path: str) -> None:
    single = [f"{RATES}.conv1.pattern=Conv|conv1/kernel"]  # matches in every model
    assert set(paths_of(errors_of(PAPER, *single, *overrides))) == {path}
    assert not errors_of(PAPER, "parallel.strategy=tower")


def test_groups_of_norms_are_shared_by_all_devices() -> None:
    hybrid = ("model.name=groupnorm", "parallel.strategy=hybrid", "train.batch_size=132")
    found = {count: paths_of(errors_of(PAPER, *hybrid, devices=count)) for count in (2, 3)}
    assert "parallel.strategy" not in found[2]
    assert "parallel.strategy" in found[3]  # 32 groups


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("job=prepare", "job"),
        ("parallel.strategy=single", "parallel.devices"),
        ("parallel.devices=2", "parallel.devices"),
    ],
)
def test_every_process_takes_part(override: str, path: str) -> None:
    errors = errors_of(QUICKSTART, override, devices=4, processes=2)
    assert path in paths_of(errors)
    assert errors_of(QUICKSTART, "job=evaluate", devices=4, processes=2) == []


def test_an_image_too_small_says_what_fits_and_which_models_take_it() -> None:
    for name, size, smallest in (("paper", 60, 64), ("caffe", 63, 67), ("torchvision", 50, 63)):
        (error,) = errors_of(PAPER, f"model.name={name}", f"model.input_size={size}")
        assert error.startswith("model.layers.pool5: ")
        assert f" {smallest} " in error
        models = error.rpartition(" for ")[2].rstrip(".").split(", ")
        assert ("torchvision" in models) == (size == 63)
        assert "cifar_26" in models
        assert name not in models


def test_all_that_does_not_fit_the_model_is_returned_at_once() -> None:
    errors = errors_of(
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
    (error,) = errors_of(PAPER, "model.layers.conv1.features=97")
    assert error.startswith("model.layers.norm1: ")


def test_an_image_that_vanishes_in_the_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (layers.Conv("conv1", 4, 3), layers.Pool("pool1"), layers.Pool("pool2"))
    small = layers.ModelSpec(input_size=8, channels=1, layers=rows)  # 8, 6, 2 pixels
    monkeypatch.setitem(variants.VARIANTS, "paper", small)  # type: ignore[misc]
    (error,) = errors_of(QUICKSTART, "model.name=paper")
    assert error.startswith("model.layers.pool2: ")
    assert " 9 pixels" in error
