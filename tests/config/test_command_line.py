import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax import schema
from alexnet_jax.config import command_line
from alexnet_jax.config.checks import changed_keys
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.defaults import JOBS, SCHEMA
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


def parse(*args: str) -> Command:
    return command_line.parse(args)


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a config file and returns the flag that names it."""

    def write(text: str) -> str:
        (tmp_path / "file.py").write_text(text)
        return f"--config={tmp_path}/file.py"

    return write


def test_a_file_is_merged_into_the_defaults(write_config: WriteConfig) -> None:
    command = parse(write_config(DERIVED))
    assert command.errors == ()
    expected = schema.flatten(schema.defaults(SCHEMA)) | {
        "name": "derived",
        "evaluation.batch_size": 256,
        "optimizer.rates.weights.boundaries": ("3 epochs",),
    }
    assert schema.flatten(command.config.to_dict()) == expected
    assert command.workdir == Path("runs/derived")
    assert command.job == "train"


def test_the_part_after_a_colon_is_the_argument_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "odd:folder" / "file.py"
    file.parent.mkdir()
    file.write_text(DERIVED)
    assert parse(f"--config={file}:_more").workdir == Path("runs/derived_more")
    assert parse(f"--config={file}").workdir == Path("runs/derived")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.batch_size=64"], {"evaluation.batch_size": 128}),
        (["optimizer.rates.weights.rate=1"], {"optimizer.rates.biases.rate": 2.0}),
        # a derived value that is set itself no longer follows, in either order
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
    assert command.errors == ()
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
        "--config.augment.draw_first_batch",
        "False",
        "--config.optimizer.momentum",
        "0",
        "--config.optimizer.rates.conv1.pattern=conv1/.*=?",
        "--config.optimizer.rates.conv1.boundaries=('1 epoch',)",
        "--workdir",
        "~/somewhere",
        "--dry_run",
    )
    config = command.config
    assert command.errors == ()
    assert (config.seed, config.optimizer.momentum) == (5, 0.0)
    augment = config.augment
    assert (augment.random_flip, augment.random_crop, augment.draw_first_batch) == (True, 0, 0)
    conv1 = config.optimizer.rates.conv1
    assert (conv1.pattern, conv1.boundaries, conv1.rate) == ("conv1/.*=?", ("1 epoch",), 0.01)
    rates = config.optimizer.rates.to_dict()
    del rates["conv1"]
    assert rates == parse(QUICKSTART).config.optimizer.rates.to_dict()  # the file's rows stay
    assert command.workdir == Path.home() / "somewhere"
    assert command.job == "dry_run"


def test_added_rates_come_first_in_their_order(write_config: WriteConfig) -> None:
    """A ConfigDict iterates in alphabetical order; its dict does not."""
    file = write_config(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    row = {'pattern': 'x'}\n"
        "    return ConfigDict({'optimizer': {'rates': {'z': row, 'biases': row, 'y': row}}})\n"
    )
    command = parse(file, "--config.optimizer.rates.x.rate=1")
    rates = command.config.optimizer.rates.to_dict()
    assert list(rates) == ["z", "y", "x", "norms", "weights", "biases"]
    assert command.file_config is not None
    assert list(command.file_config.optimizer.rates.to_dict())[:2] == ["z", "y"]


def test_a_frozen_config_takes_overrides_too(write_config: WriteConfig) -> None:
    file = write_config(
        "from ml_collections import FrozenConfigDict\n"
        "def get_config():\n"
        "    return FrozenConfigDict({'seed': 1, 'train': {'batch_size': 4}})\n"
    )
    command = parse(file, "--config.seed=3")
    assert command.errors == ()
    assert (command.config.seed, command.config.train.batch_size) == (3, 4)


def test_a_config_file_may_define_dataclasses(write_config: WriteConfig) -> None:
    file = write_config(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from ml_collections import ConfigDict\n"
        "@dataclasses.dataclass\n"
        "class Options:\n"
        "    seed: int = 3\n"
        "def get_config():\n"
        "    return ConfigDict({'seed': Options().seed})\n"
    )
    assert parse(file).config.seed == 3


def test_the_config_of_a_run_is_a_config(tmp_path: Path) -> None:
    """All of it comes back, the order of the rates and the types of values too."""
    row = ("--config.optimizer.rates.zero.pattern=fc8/kernel", "--config.optimizer.momentum=0.5")
    first = parse(f"--config={ROOT}/configs/paper.py", *row).config.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(first))
    for args in ([f"--config={tmp_path}/config.json"], [f"--workdir={tmp_path}"]):
        command = parse(*args, "--config.job=evaluate", "--config.seed=3")
        assert (command.errors, command.job, command.workdir) == ((), "evaluate", tmp_path)
        config = command.config.to_dict()
        assert config == {**first, "job": "evaluate", "seed": 3}
        assert list(config["optimizer"]["rates"]) == list(first["optimizer"]["rates"])
    assert parse(f"--config={tmp_path}/config.json", "--workdir=x").workdir == Path("x")


def test_errors_of_flags_file_and_overrides_are_all_listed(write_config: WriteConfig) -> None:
    command = parse(
        "stray",
        write_config(WRONG),
        "--workdri=x",
        "--flagfile=x",
        "--dry_run=maybe",
        "--config.train.batch_size=many",
        "--config.optimizer.rates.weights.rat=1",
        "--config.batch_size=1",
        "--config.seed",
        "--workdir=kept",
    )
    assert [error.partition(":")[0] for error in command.errors] == [
        "stray",
        "--workdri=x",
        "--flagfile=x",
        "--dry_run",
        "train.batch_size",
        "seed",
        "model",
        "nmae",
        "optimizer.momentum",
        "optimizer.rates.weights.step_values",
        "train.batchsize",
        "train.duration",
        "optimizer.rates.weights.rat",
        "batch_size",
    ]
    assert "'--workdir'?" in command.errors[1]
    assert command.workdir == Path("kept")


def test_a_workdir_in_a_bucket_is_refused() -> None:
    for url in ("gs://bucket/run", "s3://bucket", "file:///tmp/run"):
        (error,) = parse(QUICKSTART, f"--workdir={url}").errors
        assert error.startswith("--workdir:")
    assert parse(QUICKSTART, "--workdir=/odd:/name").errors == ()


def test_the_home_of_an_unknown_user_is_refused() -> None:
    for path in ("--workdir", "data.root", "prepare.output", "train.init_from"):
        flag = path if path.startswith("--") else f"--config.{path}"
        (error,) = parse(QUICKSTART, f"{flag}=~nobody_of_that_name/x").errors
        assert error.startswith(f"{path}: ")
    with pytest.raises(InputError, match="no config file"):
        parse("--config=~nobody_of_that_name/x.py")


@pytest.mark.parametrize(
    ("text", "contained"),
    [
        ("def get_config(:", ["SyntaxError", "line 1"]),
        ("x = 1", ["get_config()"]),
        ("def get_config(): return {}", ["dict", "ConfigDict"]),
        ("def get_config(): pass", ["NoneType", "ConfigDict"]),
        ("import nothing_of_the_kind", ["line 1", "nothing_of_the_kind"]),
        ("\n\ndef get_config():\n    return {}['rate']", ["line 4", "KeyError: 'rate'"]),
        ("import sys\nsys.exit('no')", ["line 2", "SystemExit: no"]),
    ],
)
def test_a_file_that_is_not_a_config(
    write_config: WriteConfig, text: str, contained: list[str]
) -> None:
    flag = write_config(text)
    with pytest.raises(InputError) as caught:
        parse(flag)
    for part in [f"{flag.removeprefix('--config=')!r}", *contained]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "contained"),
    [
        ([], "--config="),
        (["--workdir=runs/absent"], "--config="),
        (["evaluate"], "evaluate PATH"),
        (["--config.job=import_weights"], "import_weights PATH"),
        (["--confg=x.py"], "'--config'?"),
        (["--config=configs/quickstat.py"], "'quickstart.py'?"),
        (["--config=nowhere/at_all.py"], "nowhere/at_all.py"),
        (["--config=configs"], "'configs'"),
        (["--config=README.md"], "README.md"),
        (["--config=absent.json"], "absent.json"),
        (["--config=configs/paper.py:smok"], "smoke"),
        (["--config"], "--config"),
    ],
)
def test_a_command_without_a_config(
    monkeypatch: pytest.MonkeyPatch, given: list[str], contained: str
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as caught:
        parse(*given)
    assert contained in str(caught.value)


@pytest.mark.parametrize("text", ["{", "3", "[]", ""])
def test_a_damaged_config_of_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        parse(f"--workdir={tmp_path}")


def test_help_names_every_flag_and_key() -> None:
    assert parse("--help").job == ""
    text = command_line.usage()
    for flag in ("--config", "--workdir", "--dry_run", "--help"):
        assert f"{flag}: " in text
    for job, names in command_line.WORDS.items():
        assert f"{job}: {', '.join(names)}\n" in text
    for path, key in schema.keys(SCHEMA):
        assert f"{path} = {key.default!r}: {key.doc}" in text


def test_changed_keys_are_those_that_differ_and_must_not() -> None:
    old = parse(QUICKSTART).config.to_dict()
    assert changed_keys(json.loads(json.dumps(old)), old) == {}
    overrides = ("seed=7", "checkpoint.keep=5", "train.duration=9 steps", "job=evaluate")
    new = parse(QUICKSTART, *(f"--config.{override}" for override in overrides)).config.to_dict()
    assert changed_keys(old, new) == {
        "seed": (0, 7),
        "train.duration": ("16 epochs", "9 steps"),  # its rates depend on the duration
    }
    row = parse(QUICKSTART, "--config.optimizer.rates.fc.pattern=fc").config.to_dict()
    assert changed_keys(old, row) == {"optimizer.rates.fc.pattern": ("", "fc")}
    del old["data"]["holdout"]  # of an older version
    assert changed_keys(old, parse(QUICKSTART).config.to_dict()) == {}


def test_a_run_may_be_extended_where_no_rate_depends_on_its_duration() -> None:
    paper = f"--config={ROOT}/configs/paper.py"
    old, new = (
        parse(paper, f"--config.train.duration={text}").config.to_dict()
        for text in ("4 steps", "9 steps")
    )
    assert changed_keys(old, new) == {}


# ---- JOB PATH [MORE ...]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """The folder of a run with the checkpoint of a step, as far as a command needs it."""
    config = parse(QUICKSTART).config.to_dict()
    (tmp_path / "run" / "checkpoints" / "300").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def test_words_set_what_their_flags_set(workdir: Path, tmp_path: Path) -> None:
    file = tmp_path / "alexnet.pth.tar"
    file.write_text("")
    for words, flags in (
        (["evaluate", f"{workdir}"], ["--config.job=evaluate", f"--workdir={workdir}"]),
        (["evaluate", f"{file}"], ["--config.job=evaluate", f"--workdir={file}"]),
        (["train", f"{workdir}"], ["--config.job=train", f"--workdir={workdir}"]),
        (["summary", QUICKSTART], [QUICKSTART, "--config.job=summary"]),
        (
            ["import_weights", f"{file}", "out"],
            ["--config.job=import_weights", f"--config.weights.file={file}", "--workdir=out"],
        ),
        (
            ["predict", f"{workdir}", "a b.jpg", "c"],
            [
                "--config.job=predict",
                f"--workdir={workdir}",
                "--config.predict.images=('a b.jpg','c')",
            ],
        ),
    ):
        expected = parse(*flags)
        assert expected.errors == ()
        assert parse(*words) == expected
        assert parse("--config.seed=0", *words).config.to_dict() == expected.config.to_dict()


def test_the_words_of_a_job_are_flags_and_keys() -> None:
    keys = command_line.FLAGS | dict(schema.keys(SCHEMA))
    for job in command_line.WORDS:
        *single, last = [keys[name] for name in command_line.WORDS[job]]
        assert {key.kind for key in single} <= {str}
        assert last.kind in (str, tuple)
    assert command_line.WORDS.keys() <= set(JOBS)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["evalute", "{run}"], "evalute: there is no such job. Did you mean 'evaluate'?"),
        (["evaluate", "{run}", "cat.jpg"], "cat.jpg: "),
        (["summary", "{run}"], "{run}: "),
        (["evaluate", "gs://bucket/run"], "--workdir: 'gs://bucket/run'"),
        (["predict", "{run}", *map(str, range(1001))], "a quoted glob"),
    ],
)
def test_words_that_mean_nothing(workdir: Path, words: list[str], error: str) -> None:
    words = [word.replace("{run}", str(workdir)) for word in words]
    (found,) = parse(QUICKSTART, *words).errors
    assert error.replace("{run}", str(workdir)) in found


def test_the_config_of_a_path(workdir: Path, tmp_path: Path) -> None:
    """A run or its checkpoint have their own; a weight file has the defaults."""
    file = tmp_path / "run" / "checkpoints" / "weights.pth"
    file.write_text("")
    step = workdir / "checkpoints" / "300"
    for path, name, folder in (
        (workdir, "quickstart", workdir),
        (step, "quickstart", workdir),
        (file, "alexnet", Path()),
    ):
        command = parse("evaluate", str(path), "--config.seed=3")
        assert (command.errors, command.workdir, command.config.name) == ((), path, name)
        assert command.output_folder == folder
        assert ("data.channels" in command.given) == (path != file)
        assert "seed" in command.given
    imported = parse("import_weights", "downloads/alexnet-owt.pth.tar")
    assert (imported.config.name, imported.workdir) == ("alexnet-owt", Path("runs/alexnet-owt"))
    assert parse("import_weights", "x.npz", "--config.name=mine").workdir == Path("runs/mine")
