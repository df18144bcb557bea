from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax import schema
from alexnet_jax.config import command_line
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError

ROOT = Path(__file__).parents[2]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
WriteConfig = Callable[[str], str]

DERIVED = """
from ml_collections import ConfigDict

def get_config(arg=""):
    config = ConfigDict()
    config.name = f"derived{arg}"
    config.train = {"batch_size": 128}
    config.evaluation = {"batch_size": config.train.get_ref("batch_size") * 2}
    config.optimizer = {"rates": {"weights": {"rate": 0.01, "boundaries": ["3 epochs"]}}}
    weights = config.optimizer.rates.weights
    config.optimizer.rates.biases = {"rate": weights.get_ref("rate") * 2}
    return config
"""
WRONG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.nmae = "x"
    config.model = "paper"
    config.train = {"batchsize": 128, "duration": 90}
    config.optimizer = {"momentum": "0.9", "rates": {"weights": {"step_values": 0.1}}}
    return config
"""


def parse(*words: str) -> Command:
    return command_line.parse(["alexnet_jax", *words])


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a config file and returns the flag that names it."""

    def write(text: str) -> str:
        (tmp_path / "file.py").write_text(text)
        return f"--config={tmp_path}/file.py"

    return write


def test_a_file_is_laid_over_the_defaults(write_config: WriteConfig) -> None:
    command = parse(write_config(DERIVED))
    assert command.mistakes == ()
    expected = schema.flatten(schema.defaults(SCHEMA)) | {
        "name": "derived",
        "evaluation.batch_size": 256,
        "optimizer.rates.weights.boundaries": ("3 epochs",),
    }
    assert schema.flatten(command.config.to_dict()) == expected
    assert command.workdir == Path("runs/derived")
    assert not command.dry_run


def test_the_part_after_a_colon_is_the_files_argument(write_config: WriteConfig) -> None:
    assert parse(f"{write_config(DERIVED)}:_more").workdir == Path("runs/derived_more")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.batch_size=64"], {"evaluation.batch_size": 128}),
        (["optimizer.rates.weights.rate=1"], {"optimizer.rates.biases.rate": 2.0}),
        # a derived value that is given itself follows no more, in either order
        (["train.batch_size=64", "evaluation.batch_size=7"], {"evaluation.batch_size": 7}),
        (["evaluation.batch_size=7", "train.batch_size=64"], {"train.batch_size": 64}),
        (["evaluation.batch_size=None"], {"evaluation.batch_size": None}),
        (["seed=1", "seed=2"], {"seed": 2}),
    ],
)
def test_derived_values_follow_overrides(
    write_config: WriteConfig, overrides: list[str], expected: dict[str, object]
) -> None:
    file = write_config(DERIVED)
    command = parse(file, *(f"--config.{override}" for override in overrides))
    assert command.mistakes == ()
    given = schema.flatten(parse(file).config.to_dict())
    found = schema.flatten(command.config.to_dict())
    named = {override.partition("=")[0] for override in overrides}
    assert expected.items() <= found.items()
    changed = {path for path in found if found[path] != given[path]}
    assert changed <= named | expected.keys()


def test_every_way_to_write_an_override() -> None:
    command = parse(
        "--config.seed",
        "5",
        QUICKSTART,
        "--config.augment.random_flip",
        "--config.augment.random_crop=false",
        "--config.optimizer.momentum",
        "0",
        "--config.optimizer.rates.conv1.pattern=conv1/.*=?",
        "--config.optimizer.rates.conv1.boundaries=('1 epoch',)",
        "--workdir",
        "~/somewhere",
        "--dry_run",
    )
    config = command.config
    assert command.mistakes == ()
    assert (config.seed, config.optimizer.momentum) == (5, 0.0)
    assert (config.augment.random_flip, config.augment.random_crop) == (True, False)
    conv1 = config.optimizer.rates.conv1
    assert (conv1.pattern, conv1.boundaries, conv1.rate) == ("conv1/.*=?", ("1 epoch",), 0.01)
    rates = config.optimizer.rates.to_dict()
    del rates["conv1"]
    assert rates == parse(QUICKSTART).config.optimizer.rates.to_dict()  # the file's rows stay
    assert command.workdir == Path.home() / "somewhere"
    assert command.dry_run


def test_a_frozen_config_takes_overrides_too(write_config: WriteConfig) -> None:
    file = write_config(
        "from ml_collections import FrozenConfigDict\n"
        "def get_config():\n"
        "    return FrozenConfigDict({'seed': 1, 'train': {'batch_size': 4}})\n"
    )
    command = parse(file, "--config.seed=3")
    assert command.mistakes == ()
    assert (command.config.seed, command.config.train.batch_size) == (3, 4)


def test_mistakes_of_flags_file_and_overrides_are_all_listed(write_config: WriteConfig) -> None:
    command = parse(
        "stray",
        write_config(WRONG),
        "--workdri=x",
        "--config.train.batch_size=many",
        "--config.optimizer.rates.weights.rat=1",
        "--config.batch_size=1",
        "--config.seed",
        "--workdir=kept",
    )
    assert list(command.mistakes) == [
        "stray: there is no such flag.",
        "--workdri=x: there is no such flag. Did you mean '--workdir'?",
        "train.batch_size: 'many' is not a whole number.",
        "seed: has no value: write --config.seed=VALUE.",
        "model: is a group of keys; set one of them, as 'model.name'.",
        "nmae: there is no such key. Did you mean 'name'?",
        "optimizer.momentum: '0.9' is not a number.",
        "optimizer.rates.weights.step_values: 0.1 is not a tuple of numbers, as (0.1, 0.2) or "
        "(0.1,).",
        "train.batchsize: there is no such key. Did you mean 'train.batch_size'?",
        "train.duration: 90 is not a text.",
        "optimizer.rates.weights.rat: there is no such key. "
        "Did you mean 'optimizer.rates.weights.rate'?",
        "batch_size: there is no such key. Did you mean 'train.batch_size'?",
    ]
    assert command.workdir == Path("kept")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", ["SyntaxError", "line 1"]),
        ("x = 1", ["defines no get_config()"]),
        ("def get_config(): return {}", ["returns dict, no ml_collections.ConfigDict"]),
        ("def get_config(): pass", ["returns NoneType, no ml_collections.ConfigDict"]),
        ("import nothing_of_the_kind", ["fails in line 1", "No module named 'nothing_of_the"]),
        ("\n\ndef get_config():\n    return {}['rate']", ["in line 4", "KeyError: 'rate'"]),
        ("import sys\nsys.exit('no')", ["fails in line 2", "SystemExit: no"]),
    ],
)
def test_a_file_that_is_no_config(write_config: WriteConfig, text: str, words: list[str]) -> None:
    flag = write_config(text)
    with pytest.raises(InputError) as caught:
        parse(flag)
    for word in [f"{flag.removeprefix('--config=')!r}", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ["--config=configs/quickstart.py", "--help"]),
        (["--confg=x.py"], ["--confg=x.py: there is no such flag. Did you mean '--config'?"]),
        (["--config=configs/quickstat.py"], ["'configs/quickstat.py'", "mean 'quickstart'?"]),
        (["--config=nowhere/at_all.py"], ["no config file 'nowhere/at_all.py'"]),
        (["--config=configs"], ["no config file 'configs'"]),
        (["--config=README.md"], ["'README.md' does not end in .py"]),
        (["--config=configs/paper.py:smok"], ["unknown argument 'smok'", "text or smoke"]),
        ([QUICKSTART, "--workdir"], ["Missing value", "--workdir"]),
        ([QUICKSTART, "--dry_run=maybe"], ["--dry_run=maybe", "true or false"]),
    ],
)
def test_a_command_without_a_config(
    monkeypatch: pytest.MonkeyPatch, given: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as caught:
        parse(*given)
    for word in words:
        assert word in str(caught.value)


def test_help_names_every_flag_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    for flag in ("--config", "--workdir", "--dry_run", "--help"):
        assert f"{flag}: " in text
    for path, key in schema.keys(SCHEMA):
        assert f"{path} = {key.default!r}: {key.doc}" in text
