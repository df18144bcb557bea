"""Values of a config that contradict each other, have no effect, or differ from a run's."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import durations, schema
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.defaults import INPUTS, SCHEMA, SOURCES, STRATEGIES
from alexnet_jax.errors import did_you_mean
from alexnet_jax.models import create_spec, layers, list_models, list_parameter_paths
from alexnet_jax.models.summary import layer_table, sharding_errors, smallest_input
from alexnet_jax.training.schedule import row_of

# Keys that have an effect only if one of some other keys has one of some values; (): if it is set.
_NEEDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "data.name": {"data.source": ("tfds",), "prepare.input": ("tfds",)},
    "data.root": {"data.source": [name for name in SOURCES if name != "digits"]},
    "data.holdout": {"data.source": ("folder",), "job": ("prepare",)},
    "prepare.root": {"prepare.input": [name for name in INPUTS if name != "digits"]},
    "prepare.columns": {"prepare.input": ("list",)},
    "prepare.pattern": {"prepare.input": ("pattern",)},
    "prepare.quality": {"prepare.format": ("jpeg",)},
    "augment.crop_group_size": {"augment.random_crop": (), "augment.random_flip": ()},
    "augment.channel_mean": {"augment.mean": ("given",)},
    "augment.mean_examples": {
        "augment.mean": ("image", "image_at_crop", "channel"),
        "augment.color_noise": ("code", "text"),
    },
    "augment.color_noise_std": {"augment.color_noise": ("code", "text")},
    "augment.color_noise_until": {"augment.color_noise": ("code", "text")},
    "train.init_checkpoint": {"train.init_from": ()},
    "train.init_layers": {"train.init_from": ()},
    "train.init_new_head": {"train.init_from": ()},
    "train.scratch_baseline": {"train.init_from": ()},
    "optimizer.decay_pattern": {"optimizer.weight_decay": ()},
    "optimizer.rates.<row>.boundaries": {"optimizer.rates.<row>.schedule": ("step",)},
    "optimizer.rates.<row>.step_values": {"optimizer.rates.<row>.schedule": ("step",)},
    "optimizer.rates.<row>.factor": {"optimizer.rates.<row>.schedule": ("dexp",)},
    "optimizer.rates.<row>.num_stages": {"optimizer.rates.<row>.schedule": ("dexp",)},
    "optimizer.plateau.factor": {"optimizer.rates.<row>.schedule": ("plateau",)},
    "optimizer.plateau.patience": {"optimizer.rates.<row>.schedule": ("plateau",)},
    "optimizer.plateau.threshold": {"optimizer.rates.<row>.schedule": ("plateau",)},
    "evaluation.views": {"job": ("evaluate", "train")},  # a run's file may hold it for later
    "evaluation.scales": {"evaluation.views": ("dense",)},
    "weights.file": {"job": ("import_weights",)},
    "parallel.micro_batches": {"parallel.strategy": ("stage",)},
}

# Keys that may differ when a run is resumed.
_MUTABLE = re.compile(
    r"job|compilation_cache|augment\.draw_first_batch|train\.(stuck_after|scratch_baseline)"
    r"|data\.(root|threads|processes|prefetch)"
    r"|(prepare|checkpoint|evaluation|export|features|predict|weights|parallel|estimate)\..*"
)


def errors(command: Command, num_devices: int, num_processes: int) -> list[str]:
    """Returns the errors of a command whose values each have the right type.

    A key of the file that the command line makes useless is no error.

    Args:
      command: as parsed.
      num_devices: devices the run may use.
      num_processes: processes that own them.
    """
    config = command.config
    spec, model_errors = _spec(config)
    before = useless_keys(command.file_config) if command.file_config else {}
    overridden = " ".join(f"{path}." for path in command.overrides)
    found = [
        *model_errors,
        *(_model_errors(config, spec, num_devices) if spec else ()),
        *_augmentation_errors(config),
        *_rate_errors(config),
        *_parallel_errors(config, num_devices, num_processes),
        *(_prepare_errors(config) if config.job == "prepare" else ()),
        *(
            f"{path}: {error}"
            for path, error in useless_keys(config).items()
            if path in before or f"{path}." in overridden
        ),
    ]
    invalid = {error.partition(":")[0] for error in command.errors}  # these are at their defaults
    if "model.name" in invalid:
        return []
    return [error for error in found if error.partition(":")[0] not in invalid]


def useless_keys(config: ConfigDict) -> dict[str, str]:
    """Returns {path: why} of the keys that were set but have no effect."""
    values, rows = schema.flatten(config.to_dict()), config.optimizer.rates.to_dict()
    any_plateau = any(row["schedule"] == "plateau" for row in rows.values())
    values["optimizer.rates.<row>.schedule"] = "plateau" if any_plateau else ""
    found, known = {}, dict(schema.keys(SCHEMA))
    for general, options in _NEEDS.items():
        for row in rows if "<row>" in general else ("<row>",):
            path = general.replace("<row>", row)
            needs = {name.replace("<row>", row): want for name, want in options.items()}
            effective = any(values[k] in want if want else values[k] for k, want in needs.items())
            if values[path] != known[general].default and not effective:
                found[path] = _without(needs)
    return found | _useless_patterns(config, rows)


def _without(needs: Mapping[str, Sequence[Any]]) -> str:
    """Returns why a key has no effect without one of some other keys, as in _NEEDS."""
    if not any(needs.values()):
        names = " or ".join(f"--config.{name}" for name in needs)
        return f"requires {names}, and has no effect without it."
    texts = (f"{name} {' or '.join(map(repr, want))}" for name, want in needs.items())
    return f"has no effect without {', or '.join(texts)}."


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {path: (old value, new value)} of the keys that differ but must not.

    A key that one of the configs lacks is at its default. The duration may change where no learning
    rate depends on it.
    """
    merged = (schema.merge(SCHEMA, schema.flatten(dict(tree)))[0] for tree in (old, new))
    before, after = map(schema.flatten, merged)
    changed = {}
    for path in sorted(before | after):
        key = schema.find(SCHEMA, path)
        default = key and key.default  # of a row of rates that one of the configs lacks
        values = before.get(path, default), after.get(path, default)
        if values[0] != values[1] and not _MUTABLE.fullmatch(path):
            changed[path] = values
    if "dexp" not in (row["schedule"] for row in new["optimizer"]["rates"].values()):
        changed.pop("train.duration", None)
    return changed


def _rates_of_parameters(config: ConfigDict, spec: layers.ModelSpec) -> dict[str, str | None]:
    """Returns the row of rates of each parameter's path; rows without a pattern do not apply."""
    rows = config.optimizer.rates.to_dict()
    patterns = {name: row["pattern"] for name, row in rows.items() if row["pattern"]}
    return {path: row_of(patterns, path) for path in list_parameter_paths(spec)}


def _useless_patterns(config: ConfigDict, rows: Mapping[str, Any]) -> dict[str, str]:
    """Returns what matches no parameter: rows that the user set, and the decay pattern."""
    spec, _ = _spec(config)
    if spec is None:
        return {}
    used, standard = (
        _rates_of_parameters(config, spec),
        schema.defaults(SCHEMA)["optimizer"]["rates"],
    )
    first, *_, last = used
    found = {
        f"optimizer.rates.{name}": f"{row['pattern']!r} matches no parameter that an earlier row "
        f"does not match; there are {first}, ..., {last}."
        for name, row in rows.items()
        if row["pattern"] and name not in used.values() and row != standard.get(name)
    }
    decay = config.optimizer.decay_pattern if config.optimizer.weight_decay else ""
    if not any(re.search(decay, path) for path in used):
        found["optimizer.decay_pattern"] = f"{decay!r} matches no parameter."
    return found


def _spec(config: ConfigDict) -> tuple[layers.ModelSpec | None, list[str]]:
    """Returns the spec of the config's model, or None and why there is none."""
    options = config.model.to_dict()
    try:
        spec = create_spec(**options)
        layer_table(spec, num_classes=2)
    except ValueError as error:
        hint = f" {_models_for(options)}" if isinstance(error, layers.TooSmallError) else ""
        return None, [f"model.{message}{hint}" for message in error.args]
    return spec, []


def _models_for(options: dict[str, Any]) -> str:
    """Returns the smallest image the chosen model takes, and the models that take this one."""
    size = options["input_size"] or create_spec(options["name"]).input_size
    smallest = smallest_input(create_spec(**{**options, "input_size": None}))
    fits = f"The smallest image that fits is {smallest} pixels wide"
    fitting = [name for name in list_models() if smallest_input(create_spec(name)) <= size]
    others = f"; {size} pixels are enough for {', '.join(fitting)}" if fitting else ""
    return f"{fits if smallest <= layers.MAX_INPUT_SIZE else 'No image is large enough'}{others}."


def _model_errors(config: ConfigDict, spec: layers.ModelSpec, num_devices: int) -> Iterator[str]:
    """Checks images, learning rates, strategy and views against the model."""
    data, least, views = config.data, spec.input_size, config.evaluation.views
    if config.job in ("train", "evaluate", "profile_input"):  # on images
        if data.channels != spec.channels:
            yield f"data.channels: {data.channels}, but the model takes {spec.channels}."
        if data.image_size < least:
            yield f"data.image_size: {data.image_size}, but the model takes {least} pixels."
    for parameter, row in _rates_of_parameters(config, spec).items():
        if row is None:
            yield f"optimizer.rates: no row's pattern matches the parameter {parameter}."
    for error in _strategy_errors(config, spec, num_devices):
        yield f"parallel.strategy: {error}"
    used = {"evaluate": "evaluation", "predict": "predict"}.get(config.job)
    if used and config[used].views == "ten_crops" and data.image_size == least:
        yield f"{used}.views: ten crops of {least} pixels are equal: raise data.image_size."
    if views == "dense":
        for local in spec.of_kind(layers.LocallyConnected):
            yield f"evaluation.views: 'dense' needs shared weights, which {local.name} lacks."
        for size in config.evaluation.scales:
            if size < least:
                yield f"evaluation.scales: {size}, but the model takes {least} pixels."


def _strategy_errors(config: ConfigDict, spec: layers.ModelSpec, num_devices: int) -> Iterator[str]:
    """Checks that the devices can share the layers."""
    strategy = config.parallel.strategy
    if strategy == "tower":
        if spec.towers != 2:
            yield f"the model {config.model.name} has no layers of two groups, its towers."
        yield from sharding_errors(spec, 2)
    elif strategy == "hybrid":
        for layer in spec.of_kind(layers.Dense):
            if layer.groups > 1:
                yield f"'hybrid' shards dense layers that see all inputs; {layer.name} has groups."
        count = config.parallel.devices or num_devices
        yield from sharding_errors(spec, count, start=spec.first_dense)
    elif strategy == "stage" and any(layer.mixes_examples for layer in spec.layers):
        yield f"'stage' does not support batch norm, which the model {config.model.name} uses."


def _augmentation_errors(config: ConfigDict) -> Iterator[str]:
    augment, batch = config.augment, config.train.batch_size
    if batch % augment.crop_group_size:
        yield f"augment.crop_group_size: does not divide the batch of {batch}."
    if augment.mean == "given" and not augment.channel_mean:
        yield "augment.mean: 'given' needs augment.channel_mean, a pixel value per channel."
    if augment.channel_std and augment.scale != 1:
        yield "augment.channel_std: replaces augment.scale: leave one of them out."
    for name in ("channel_mean", "channel_std"):
        values = augment[name]
        if values and len(values) != config.data.channels:
            yield f"augment.{name}: has {len(values)} numbers for {config.data.channels} channels."
        if values and 0 < max(values) <= 1:
            pixels = ", ".join(f"{255 * value:g}" for value in values)
            yield f"augment.{name}: pixels are 0..255, not 0..1. Did you mean ({pixels})?"


def _rate_errors(config: ConfigDict) -> Iterator[str]:
    rows = config.optimizer.rates.to_dict()
    for name, rate in rows.items():
        path = f"optimizer.rates.{name}"
        boundaries, values = rate["boundaries"], rate["step_values"]
        if not rate["pattern"]:
            hint = did_you_mean(name, [other for other in rows if other != name])
            yield f"{path}.pattern: is empty: set which parameters this row applies to.{hint}"
        if rate["schedule"] != "step":
            continue
        for before, after in itertools.pairwise(map(durations.parse, boundaries)):
            if before[1] == after[1] and after[0] <= before[0]:  # other units need the data
                yield f"{path}.boundaries: {after[0]:g} does not come after {before[0]:g}."
        if len(boundaries) != len(values) or not values:
            yield f"{path}.step_values: has {len(values)} rates for {len(boundaries)} boundaries."


def _parallel_errors(config: ConfigDict, num_devices: int, num_processes: int) -> Iterator[str]:
    requested, strategy = config.parallel.devices, config.parallel.strategy
    devices = min(requested or num_devices, num_devices)
    shape = STRATEGIES[strategy].mesh_shape(devices)
    if (requested or 1) > num_devices:
        yield (
            f"parallel.devices: {requested} requested, but only {num_devices} available; a CPU "
            "has as many as parallel.cpu_devices."
        )
    elif strategy == "single" and (requested or 1) > 1:
        yield f"parallel.devices: the strategy 'single' uses one device, not {requested}."
    elif num_processes > 1 and (strategy == "single" or devices < num_devices):
        yield f"parallel.devices: {num_processes} processes use all their {num_devices} devices."
    if num_processes > 1 and config.job not in ("train", "evaluate"):
        yield f"job: {config.job!r} runs in one process: start it without a launcher."
    if strategy in ("tower", "stage") and devices % 2:
        yield (
            f"parallel.strategy: {strategy!r} needs an even number of devices, not {devices}; on a "
            "CPU set parallel.cpu_devices=2."
        )
    if config.job == "estimate" and config.estimate.device != "measured_cpu" and not requested:
        yield f"parallel.devices: set how many {config.estimate.device} there are."
    yield from _share_errors(config, max(1, shape[0]))


def _share_errors(config: ConfigDict, devices: int) -> Iterator[str]:
    """Checks that the batch divides into its parts: devices, accumulation, micro-batches."""
    share = config.train.batch_size
    parts = {"train.batch_size": devices, "train.accumulate": config.train.accumulate}
    if config.parallel.strategy == "stage":
        parts["parallel.micro_batches"] = config.parallel.micro_batches
    for path, count in parts.items():
        if share % count:
            name = "devices" if path == "train.batch_size" else "parts"
            yield f"{path}: {share} examples cannot be divided equally among {count} {name}."
            return
        share //= count


def _prepare_errors(config: ConfigDict) -> Iterator[str]:
    prepare = config.prepare
    if not prepare.output:
        yield "prepare.output: set the folder of the prepared dataset."
    if not prepare.root and prepare.input not in ("tfds", "digits"):
        yield "prepare.root: set the folder to read from."
    if prepare.format == "raw" and prepare.resize == "short_side":
        yield "prepare.resize: 'short_side' gives images of many sizes; 'raw' needs one size."
    names = [split.partition("=")[0] for split in prepare.splits]
    if not names or len(set(names)) < len(names):
        yield f"prepare.splits: {prepare.splits!r} must name at least one split, each only once."
    if len(prepare.columns) > 2:
        yield f"prepare.columns: {prepare.columns!r} are more than two, for path and label."
    if not re.compile(prepare.pattern).groups:
        yield f"prepare.pattern: {prepare.pattern!r} has no group for the class: '(.+)\\.\\d+'."
