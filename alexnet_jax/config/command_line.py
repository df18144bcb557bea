"""From the arguments of a command to its config: file, overrides, and every error at once."""

import dataclasses
import json
import os
import re
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import JOBS, SCHEMA, path_key
from alexnet_jax.errors import InputError, did_you_mean

FLAGS = {
    "--config": schema.text(
        None,
        "Config file, with an argument of its own after a colon: configs/paper.py:smoke; or the "
        "config.json of a run, which is the default if --workdir holds a run.",
    ),
    "--workdir": path_key(
        "Folder of the run; runs/NAME. A job that uses a model also takes a checkpoint "
        "(runs/NAME/checkpoints/STEP) or a weight file."
    ),
    "--dry_run": schema.flag(False, "Print the full plan and stop."),
    "--help": schema.flag(False, "Show this text."),
}

# The flag or key that each word after the job in `JOB PATH [MORE ...]` sets.
WORDS: Mapping[str, tuple[str, ...]] = {
    "evaluate": ("--workdir",),
    "export": ("--workdir", "export.output"),
    "features": ("--workdir", "features.images"),
    "import_weights": ("weights.file", "--workdir"),
    "predict": ("--workdir", "predict.images"),
    "train": ("--workdir",),
}
# These use the model and the preprocessing of what PATH names, and need no config file.
MODEL_JOBS = tuple(job for job in WORDS if job != "train")


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for.

    Attributes:
      config: the full tree, locked; keys with `errors` are at their defaults.
      workdir: where the run keeps its files.
      job: which module of `jobs` to run; "" if help was asked for.
      errors: what is wrong with the command and the config so far, a sentence each.
      overrides: paths of the keys set on the command line.
      given: paths of the keys set there or in the config file.
      file_config: the tree before the overrides; None if it is that of a run.
    """

    config: ConfigDict
    workdir: Path
    job: str
    errors: tuple[str, ...] = ()
    overrides: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    file_config: ConfigDict | None = None

    @property
    def output_folder(self) -> Path:
        """Where a job that uses a model writes: its run, for a weight file the current folder."""
        return run_of(self.workdir) or Path()


def run_of(path: Path) -> Path | None:
    """Returns the workdir that a path is, or whose checkpoint it is; None of other paths."""
    in_run = path.parent.name == "checkpoints" and path.is_dir()
    folder = path.parent.parent if in_run else path
    is_run = (folder / "checkpoints").is_dir() or (folder / "config.json").is_file()
    return folder if is_run else None


def usage() -> str:
    """Returns the help text: the flags, then every key of a config with its default."""
    lines = ["python -m alexnet_jax.main --config=FILE[:ARG] [flags] [--config.KEY=VALUE ...]"]
    lines += ["python -m alexnet_jax.main JOB PATH [MORE ...] [flags], which sets", ""]
    lines += [f"  {job}: {', '.join(names)}" for job, names in WORDS.items()] + [""]
    lines += [f"  {name}: {key.doc}" for name, key in FLAGS.items()]
    lines += ["", "Config keys with their defaults and meaning:"]
    for path, key in schema.keys(SCHEMA):
        choices = f" One of {', '.join(map(repr, key.choices))}." if key.choices else ""
        lines.append(f"  {path} = {key.default!r}: {key.doc}{choices}")
    return "\n".join(lines)


def parse(args: Sequence[str]) -> Command:
    """Reads a command line.

    Args:
      args: the arguments after the program's name.

    Raises:
      InputError: no config can be read at all.
    """
    flags, overrides, errors = _parse_args(args)
    if flags["--help"]:
        return Command(ConfigDict(), Path(), job="")
    workdir = flags["--workdir"] and Path(os.path.expanduser(flags["--workdir"]))
    reference = flags["--config"] or _config_of(workdir)
    file = _load(reference) if reference else _without_file(workdir, overrides)
    if file is None:
        job = overrides.get("job")
        missing = "Set a config: --config=configs/quickstart.py (see --help)."
        if job == "train":
            missing = "Name a run or a config: train PATH or --config=FILE (see --help)."
        elif job in MODEL_JOBS:
            missing = (
                f"Name a model, the workdir of a run or a weight file: {job} PATH (see --help)."
            )
        # Errors in words and flags begin with them: without these, a config may not be missing.
        mistyped = any(error.partition(": ")[0] in args for error in errors)
        raise InputError("\n".join(errors if mistyped else [*errors, missing]))
    given = _flatten(file)
    tree, file_errors = schema.merge(SCHEMA, given)
    is_run = reference.endswith(".json")
    file_config = None if file_errors or is_run else ordered_config(tree)
    tree, more = schema.merge(SCHEMA, _override(file, overrides))
    config = ordered_config(tree).lock()
    return Command(
        config,
        workdir or (Path(reference).parent if is_run else Path("runs", config.name)),
        "dry_run" if flags["--dry_run"] else config.job,
        (*errors, *more),
        frozenset(overrides),
        frozenset({**given, **overrides}),
        file_config,
    )


def _config_of(workdir: Path | None) -> str:
    """Returns the config.json of the run at a path, "" if there is none."""
    run = run_of(workdir) if workdir else None
    return str(run / "config.json") if run and (run / "config.json").is_file() else ""


def _without_file(workdir: Path | None, overrides: Mapping[str, Any]) -> ConfigDict | None:
    """Returns the config of a job that needs no config file, None of other jobs."""
    job, file = overrides.get("job"), overrides.get("weights.file")
    if job == "import_weights" and file:
        return ConfigDict({"name": Path(file).name.partition(".")[0]})
    return ConfigDict() if job in MODEL_JOBS and workdir else None


def _parse_args(args: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Splits a command line into pairs of a name and a value.

    Returns:
      The values of FLAGS, {path: value} of the config overrides, and the errors.
    """
    found, words, errors = dict[str, Any](), list[str](), list[str]()
    remaining = list(args)
    while remaining:
        arg = remaining.pop(0)
        if not arg.startswith("-"):
            words.append(arg)
            continue
        name, equals, typed = arg.partition("=")
        path = name.removeprefix("--config.")
        key = _key(path)
        if key is None and path == name:
            errors.append(f"{arg}: there is no such flag.{did_you_mean(arg, list(FLAGS))}")
            continue
        value: Any = typed if equals else _take_value(key, remaining)
        if value is None:
            errors.append(f"{path}: has no value: write {name}=VALUE.")
            continue
        try:
            found[path] = schema.parse(key, value) if key else value
        except ValueError as error:
            errors.append(f"{path}: {error}")
    by_words, word_errors = _parse_words(words)
    found = by_words | found
    flags = {name: found.pop(name, key.default) for name, key in FLAGS.items()}
    return flags, found, word_errors + errors


def _key(path: str) -> schema.Key | None:
    """Returns the key of a flag such as --workdir, or of the config, or None."""
    return FLAGS.get(path) if path.startswith("-") else schema.find(SCHEMA, path)


def _parse_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns what JOB PATH [MORE ...] set, {flag or path of a key: value}, and the errors."""
    if not words:
        return {}, []
    job, *rest = words
    if job not in JOBS:
        return {}, [f"{job}: there is no such job.{did_you_mean(job, JOBS)}"]
    found: dict[str, Any] = {"job": job}
    for name in WORDS.get(job, ()):
        key = _key(name)
        if key is None or not rest:
            break
        count = len(rest) if key.kind is tuple else 1
        taken, rest = rest[:count], rest[count:]
        if len(taken) > schema.MAX_LENGTH:
            most = f"{len(taken):,} words are more than {schema.MAX_LENGTH:,}"
            return found, [
                f"{name}: {most}: name a folder, a quoted glob or a list in a .txt file."
            ]
        try:
            found[name] = schema.check(key, tuple(taken) if key.kind is tuple else taken[0])
        except ValueError as error:
            return found, [f"{name}: {error}"]
    names = (name.rpartition(".")[2].removeprefix("--").upper() for name in WORDS.get(job, ()))
    form = " ".join([job, *names])
    return found, [f"{word}: is one word too many; write '{form}'." for word in rest]


def _take_value(key: schema.Key | None, remaining: list[str]) -> str | None:
    """Returns the value of an argument without '=': the next argument, or True for a flag."""
    is_switch = key is not None and key.kind is bool
    follows = bool(remaining) and not remaining[0].startswith("--")
    if follows and (not is_switch or remaining[0].lower() in ("true", "false")):
        return remaining.pop(0)
    return "True" if is_switch else None


def _load(reference: str) -> ConfigDict:
    """Returns the config of FILE[:ARG], without the defaults.

    Raises:
      InputError: the file is missing, fails, or contains no config.
    """
    stem, separator, argument = reference.partition(".py:")
    path = os.path.expanduser(stem + separator.removesuffix(":"))
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        hint = did_you_mean(name, [file.name for file in Path(folder).glob("*.py")])
        raise InputError(f"There is no config file {path!r} (looked in {os.getcwd()}).{hint}")
    try:
        if path.endswith(".json"):
            config = ConfigDict(json.loads(Path(path).read_text()))
        else:
            get_config = runpy.run_path(path, run_name="config").get("get_config")
            config = get_config and (get_config(argument) if argument else get_config())
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        raised = (last.filename, last.name) == (path, "get_config") and "raise" in (last.line or "")
        if raised and isinstance(error, ValueError):  # the config's sentence on its argument
            choices = re.findall(r"\w+", str(error).rpartition(":")[2])
            hint = did_you_mean(argument, choices)
            raise InputError(f"{reference}: {str(error).removesuffix('.')}.{hint}") from error
        lines = [f" in line {frame.lineno}" for frame in frames if frame.filename == path]
        what = f"{''.join(lines[-1:])} with {type(error).__name__}: {error}"
        raise InputError(f"The config file {path!r} fails{what}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"The config file {path!r} needs a function get_config() that returns an "
            f"ml_collections.ConfigDict, not {type(config).__name__}."
        )
    return ConfigDict(config)  # not frozen, so that it takes overrides


def _override(config: ConfigDict, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {path: value} of a config with overrides, which its references follow."""
    known = _flatten(config)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({p: overrides[p] for p in overrides if p in known})
    return {**_flatten(config), **overrides}


def _flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns {path: value} in the order of the config file, which only its JSON keeps."""
    return schema.flatten(json.loads(config.to_json_best_effort()))


def ordered_config(tree: Mapping[str, Any]) -> ConfigDict:
    """Returns a tree as a ConfigDict whose `to_dict` keeps the order of the keys."""
    nodes = {
        name: ordered_config(node) if isinstance(node, Mapping) else node
        for name, node in tree.items()
    }
    return ConfigDict(nodes, sort_keys=False)
