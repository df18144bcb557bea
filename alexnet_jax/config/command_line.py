"""From the words of a command to a checked config: file, overrides, every mistake at once."""

import dataclasses
import importlib.util
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import EXIT_DONE, InputError

_OVERRIDE = "--config."


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for.

    Attributes:
      config: the full tree, locked; `mistakes` stand at their defaults.
      workdir: where the run keeps its files.
      dry_run: whether to describe the run and stop.
      mistakes: what is wrong with the command and the config so far, a sentence each.
    """

    config: ConfigDict
    workdir: Path
    dry_run: bool
    mistakes: tuple[str, ...]


def make_flags() -> flags.FlagValues:
    """Returns the flags of the program."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config",
        None,
        "Config file, with an argument of its own after a colon: configs/paper.py:smoke. "
        "Any key is overridden by --config.KEY=VALUE.",
        flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Describe the run and stop.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this text.", flag_values=values)
    return values


def usage() -> str:
    """Returns the help text: the flags, then every key of a config with its default."""
    lines = ["python -m alexnet_jax.main --config=FILE[:ARG] [flags] [--config.KEY=VALUE ...]", ""]
    values = make_flags()
    lines += [f"  --{name}: {values[name].help}" for name in values]
    lines += ["", "Config keys, their defaults and meaning:"]
    for path, key in schema.keys(SCHEMA):
        choices = f" One of {', '.join(map(repr, key.choices))}." if key.choices else ""
        lines.append(f"  {path} = {key.default!r}: {key.doc}{choices}")
    return "\n".join(lines)


def parse(words: Sequence[str]) -> Command:
    """Reads a command line.

    Args:
      words: as in sys.argv, the program's name first.

    Raises:
      InputError: no config can be read at all.
      SystemExit: help was asked for and given.
    """
    values = make_flags()
    values.set_gnu_getopt(True)  # a stray word does not end the flags
    overrides, rest = _take_overrides(words)
    try:
        unknown = values(rest, known_only=True)[1:]
    except flags.IllegalFlagValueError as error:  # of --dry_run and --help
        raise InputError(f"{str(error).partition(': ')[0]}: write true or false.") from error
    except flags.Error as error:
        raise InputError(f"{error}.") from error
    if values.help:
        print(usage())
        raise SystemExit(EXIT_DONE)
    known = [f"--{name}" for name in values]
    mistakes = [
        f"{word}: there is no such flag.{schema.did_you_mean(word, known)}" for word in unknown
    ]
    if values.config is None:
        raise InputError(
            "\n".join([*mistakes, "Name a config: --config=configs/quickstart.py (see --help)."])
        )
    given, more = _apply(_load(values.config), overrides)
    tree, wrong = schema.merge(SCHEMA, given)
    config = ConfigDict(tree)
    config.lock()
    workdir = Path(values.workdir or os.path.join("runs", config.name)).expanduser()
    return Command(config, workdir, values.dry_run, (*mistakes, *more, *wrong))


def _take_overrides(words: Sequence[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Splits off the --config.KEY=VALUE and --config.KEY VALUE pairs; VALUE may be absent."""
    overrides: list[tuple[str, str | None]] = []
    rest = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith(_OVERRIDE):
            rest.append(word)
            continue
        path, equals, value = word.removeprefix(_OVERRIDE).partition("=")
        text = value if equals else None
        if not equals and remaining and not remaining[0].startswith("--"):
            text = remaining.pop(0)
        overrides.append((path, text))
    return overrides, rest


def _load(reference: str) -> ConfigDict:
    """Runs get_config of FILE[:ARG].

    Raises:
      InputError: the file is missing, fails, or has no get_config.
    """
    name, _, argument = reference.partition(":")
    path = Path(name).expanduser()
    if not path.is_file():
        hint = schema.did_you_mean(path.stem, [file.stem for file in path.parent.glob("*.py")])
        raise InputError(f"There is no config file {name!r} (looked in {Path.cwd()}).{hint}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"The config file {name!r} does not end in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        config = get_config and (get_config(argument) if argument else get_config())
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == spec.origin]
        where = f" in line {lines[-1]}" if lines else ""
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"The config file {name!r} fails{where} with {what}") from error
    if get_config is None:
        raise InputError(f"The config file {name!r} defines no get_config().")
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise InputError(f"get_config of {name!r} returns {kind}, no ml_collections.ConfigDict.")
    return ConfigDict(config)  # thawed: a frozen one takes overrides too


def _apply(
    config: ConfigDict, overrides: Sequence[tuple[str, str | None]]
) -> tuple[Mapping[str, Any], list[str]]:
    """Writes the overrides into the file's config, so that its references follow them.

    Returns:
      {path: value} of all that is given, and a sentence for each override that cannot be read.
    """
    mistakes: list[str] = []
    added: dict[str, Any] = {}
    for path, text in overrides:
        key = schema.find(SCHEMA, path)
        if text is None and key and key.kind is not bool:
            mistakes.append(f"{path}: has no value: write --config.{path}=VALUE.")
            continue
        text = "True" if text is None else text  # --config.augment.random_flip
        value, mistake = schema.parse(key, text) if key else (text, "")
        if mistake:
            mistakes.append(f"{path}: {mistake}")
        elif path in schema.flatten(config.to_dict()):
            with config.unlocked(), config.ignore_type():
                config.update_from_flattened_dict({path: value})
        else:
            added[path] = value
    return {**schema.flatten(config.to_dict()), **added}, mistakes
