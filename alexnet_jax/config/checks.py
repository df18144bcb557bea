"""Values of a config that contradict each other: every one found, each told in a sentence."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import durations, schema
from alexnet_jax.config.defaults import DURATIONS
from alexnet_jax.models import create_spec, layers, parameter_shapes
from alexnet_jax.models.layers import ModelSpec, TooSmallError
from alexnet_jax.models.summary import layer_table, sharding_errors, smallest_input
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.training.schedule import row_of

_JOBS_OF_PICTURES = ("train", "evaluate", "profile_input")  # they put pictures through the net
_JOBS_OF_MANY = ("train", "evaluate")  # several processes share them


def cross_field_errors(config: ConfigDict, num_devices: int, num_processes: int = 1) -> list[str]:
    """Returns a sentence for each rule the config breaks, the key's path first.

    Args:
      config: a full tree whose values each have their right type.
      num_devices: devices the run may use.
      num_processes: processes that have them.
    """
    spec, mistakes = _network(config)
    return [
        *_durations(config),
        *mistakes,
        *(_pictures(config, spec) if spec and config.job in _JOBS_OF_PICTURES else ()),
        *_augmentation(config),
        *_rates(config, spec),
        *_parallel(config, spec, num_devices),
        *_processes(config, num_devices, num_processes),
        *_evaluation(config, spec),
        *(_prepare(config) if config.job == "prepare" else ()),
        *(_plan(config) if config.job == "plan" else ()),
    ]


def _network(config: ConfigDict) -> tuple[ModelSpec | None, list[str]]:
    """Returns the net that the config names, or None and why there is none."""
    chosen = config.model.to_dict()
    try:
        spec = create_spec(**chosen)
        layer_table(spec, num_classes=2)
    except TooSmallError as error:
        return None, [f"model.{error} {_nets_for(chosen)}"]
    except ValueError as error:
        return None, [f"model.{mistake}" for mistake in error.args]
    return spec, []


def _nets_for(chosen: dict[str, Any]) -> str:
    """Says from what size on the chosen net works, and which nets take the size asked for."""
    size = chosen.pop("input_size") or VARIANTS[chosen["name"]].input_size
    fitting = [name for name, net in VARIANTS.items() if smallest_input(net) <= size]
    smallest = smallest_input(create_spec(**chosen))
    others = f"; {size} pixels are enough for {', '.join(fitting)}" if fitting else ""
    return f"The smallest picture that fits is {smallest} pixels wide{others}."


def _durations(config: ConfigDict) -> Iterator[str]:
    flat = schema.flatten(config.to_dict())
    texts = {path: flat[path] for path in DURATIONS if flat[path] is not None}
    for row, rate in config.optimizer.rates.items():
        for place, text in enumerate(rate.boundaries):
            texts[f"optimizer.rates.{row}.boundaries[{place}]"] = text
    for path, text in texts.items():
        try:
            durations.parse(text)
        except ValueError as error:
            yield f"{path}: {error}"


def _pictures(config: ConfigDict, spec: ModelSpec) -> Iterator[str]:
    if config.data.channels != spec.channels:
        yield (
            f"data.channels: {config.data.channels}, but the net {config.model.name} takes "
            f"{spec.channels}."
        )
    if config.data.image_size < spec.input_size:
        yield (
            f"data.image_size: {config.data.image_size} pixels are fewer than the "
            f"{spec.input_size} that the net {config.model.name} takes."
        )


def _augmentation(config: ConfigDict) -> Iterator[str]:
    keys, channels = config.augment, config.data.channels
    if config.train.batch_size % keys.crop_group_size:
        yield (
            f"augment.crop_group_size: runs of {keys.crop_group_size} do not divide the batch of "
            f"{config.train.batch_size} (train.batch_size)."
        )
    if keys.channel_mean and keys.mean != "given":
        yield (
            f"augment.channel_mean: is not used, since augment.mean is {keys.mean!r}. Did you mean "
            "augment.mean='given'?"
        )
    if keys.mean == "given" and not keys.channel_mean:
        yield "augment.mean: 'given' needs augment.channel_mean, a gray level 0..255 a channel."
    if keys.channel_std and keys.scale != 1:
        yield (
            f"augment.channel_std: stands in place of augment.scale, which is {keys.scale:g}: "
            "leave one of them out."
        )
    for name in ("channel_mean", "channel_std"):
        values = keys[name]
        if values and len(values) != channels:
            yield f"augment.{name}: {len(values)} numbers for {channels} channels."
        if values and 0 < max(values) <= 1:
            levels = ", ".join(f"{255 * value:g}" for value in values)
            yield f"augment.{name}: pixels are 0..255, not 0..1. Did you mean ({levels})?"
    if 0 in keys.channel_std:
        yield "augment.channel_std: no channel can be divided by 0."


def _rates(config: ConfigDict, spec: ModelSpec | None) -> Iterator[str]:
    rows = config.optimizer.rates
    for name, rate in rows.items():
        path = f"optimizer.rates.{name}"
        if not rate.pattern:
            hint = schema.did_you_mean(name, [other for other in rows if other != name])
            yield f"{path}.pattern: is empty: say which parameters take this row.{hint}"
        if rate.schedule == "step":
            yield from _unordered(f"{path}.boundaries", rate.boundaries)
        if rate.schedule == "step" and len(rate.boundaries) != len(rate.step_values):
            yield (
                f"{path}.step_values: {len(rate.step_values)} rates for "
                f"{len(rate.boundaries)} boundaries; each needs the rate from there on."
            )
    texts = {f"optimizer.rates.{name}.pattern": rate.pattern for name, rate in rows.items()}
    texts["optimizer.decay_pattern"] = config.optimizer.decay_pattern
    wrong = [mistake for path, text in texts.items() for mistake in _not_a_pattern(path, text)]
    yield from wrong
    if not wrong:
        yield from _without_rate(config, spec)


def _unordered(path: str, boundaries: Sequence[str]) -> Iterator[str]:
    """Durations of one unit that do not rise; other units need the data to be compared."""
    for before, after in itertools.pairwise(boundaries):
        try:
            (first, unit), (second, other) = durations.parse(before), durations.parse(after)
        except ValueError:  # told by _durations
            continue
        if unit == other and second <= first:
            yield f"{path}: {after!r} does not come after {before!r}."


def _not_a_pattern(path: str, text: str) -> Iterator[str]:
    try:
        re.compile(text)
    except re.error as error:
        yield f"{path}: {text!r} is not a regular expression: {error}."


def _without_rate(config: ConfigDict, spec: ModelSpec | None) -> Iterator[str]:
    patterns = {name: rate.pattern for name, rate in config.optimizer.rates.items()}
    shapes = parameter_shapes(spec) if spec else {}
    for layer, parameters in shapes.items():
        for parameter in parameters:
            if row_of(patterns, f"{layer}/{parameter}") is None:
                yield (
                    f"optimizer.rates: no row's pattern matches the parameter {layer}/{parameter}."
                )


def _parallel(config: ConfigDict, spec: ModelSpec | None, num_devices: int) -> Iterator[str]:
    wanted, strategy = config.parallel.devices, config.parallel.strategy
    if wanted is not None and wanted > num_devices:
        yield (
            f"parallel.devices: {wanted} are asked for, {num_devices} are here; a CPU has as many "
            "as parallel.cpu_devices says."
        )
    devices = 1 if strategy == "single" else min(wanted or num_devices, num_devices)
    if strategy in ("tower", "stage"):
        if devices % 2:
            yield (
                f"parallel.strategy: {strategy!r} needs an even number of devices, not {devices}; "
                "on a CPU set parallel.cpu_devices=2."
            )
        devices //= 2
    rules = {"tower": _towers, "hybrid": _hybrid, "stage": _stage}
    if spec and strategy in rules:
        yield from (f"parallel.strategy: {told}" for told in rules[strategy](config, spec))
    yield from _shares(config, devices)


def _processes(config: ConfigDict, num_devices: int, num_processes: int) -> Iterator[str]:
    here = f"one process; {num_processes} are here"
    if num_processes == 1:
        return
    if config.job not in _JOBS_OF_MANY:
        yield f"job: {config.job!r} is done by {here}. Start it without a launcher."
    elif config.parallel.strategy == "single":
        yield f"parallel.strategy: 'single' uses one device of {here}."
    elif config.parallel.devices is not None and config.parallel.devices < num_devices:
        yield (
            f"parallel.devices: {num_processes} processes use all the {num_devices} devices they "
            f"have, not {config.parallel.devices}."
        )


def _shares(config: ConfigDict, devices: int) -> Iterator[str]:
    """The batch over the devices that share it, and their share over the parts it is taken in."""
    batch, accumulate = config.train.batch_size, config.train.accumulate
    if not devices:
        return
    if batch % devices:
        yield (
            f"train.batch_size: {batch} does not divide by the {devices} devices that share a "
            "batch."
        )
    elif batch // devices % accumulate:
        yield (
            f"train.accumulate: the {batch // devices} examples of a device do not divide into "
            f"{accumulate} parts."
        )
    elif config.parallel.strategy == "stage":
        share, parts = batch // devices // accumulate, config.parallel.micro_batches
        if share % parts:
            yield (
                f"parallel.micro_batches: {share} examples do not divide into {parts} "
                "micro-batches."
            )


def _towers(config: ConfigDict, spec: ModelSpec) -> Iterator[str]:
    if spec.towers != 2:
        yield f"the net {config.model.name} has no layers of two groups to be its towers."
    yield from sharding_errors(spec, 2)


def _hybrid(config: ConfigDict, spec: ModelSpec) -> Iterator[str]:
    for layer in spec.layers:
        if isinstance(layer, layers.Dense) and layer.groups > 1:
            yield f"'hybrid' divides dense layers that see all inputs; {layer.name} has groups."
    yield from sharding_errors(spec, config.parallel.devices or 2, start=spec.first_dense)


def _stage(config: ConfigDict, spec: ModelSpec) -> Iterator[str]:
    if any(layer.mixes_examples for layer in spec.layers):
        yield (
            f"'stage' has no batch norm over its micro-batches, and {config.model.name} needs it."
        )


def _evaluation(config: ConfigDict, spec: ModelSpec | None) -> Iterator[str]:
    which = config.evaluation.checkpoint
    if which not in ("best", "latest") and not which.isdecimal():
        yield f"evaluation.checkpoint: {which!r} is not 'best', 'latest' or a step number."
    if config.evaluation.views == "center" or spec is None:
        return
    if config.evaluation.views == "ten_crops":
        if config.job == "evaluate" and config.data.image_size == spec.input_size:
            yield (
                f"evaluation.views: the 'ten_crops' of pictures of {spec.input_size} pixels are "
                f"all the same for the net {config.model.name}, which takes {spec.input_size}."
            )
        return
    for layer in spec.layers:
        if isinstance(layer, layers.LocallyConnected):
            yield (
                f"evaluation.views: 'dense' needs a net that takes pictures of any size; "
                f"{layer.name} of {config.model.name} has weights of its own at each place."
            )
    for size in config.evaluation.scales:
        if size < spec.input_size:
            yield (
                f"evaluation.scales: {size} pixels are fewer than the {spec.input_size} that "
                f"the net {config.model.name} takes."
            )


def _prepare(config: ConfigDict) -> Iterator[str]:
    keys = config.prepare
    if not keys.output:
        yield "prepare.output: names no folder for the prepared set."
    if not keys.root and keys.input not in ("tfds", "digits"):
        yield "prepare.root: names no folder to read from."
    if keys.format == "raw" and keys.resize == "short_side":
        yield "prepare.resize: 'short_side' gives pictures of many sizes; 'raw' needs one."
    names = [text.partition("=")[0] for text in keys.splits]
    if not names or len(set(names)) < len(names):
        yield f"prepare.splits: {keys.splits!r} does not name splits, each once."
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            yield f"prepare.splits: {name!r} is not a name of letters, digits and _."
    if len(keys.columns) > 2:
        yield f"prepare.columns: {keys.columns!r} are more than a path's and a label's."
    wrong = list(_not_a_pattern("prepare.pattern", keys.pattern))
    yield from wrong
    if not wrong and not re.compile(keys.pattern).groups:
        yield f"prepare.pattern: {keys.pattern!r} has no group for the class, as in '(.+)\\.\\d+'."


def _plan(config: ConfigDict) -> Iterator[str]:
    if config.plan.device != "measured_cpu" and config.parallel.devices is None:
        yield (
            f"parallel.devices: say how many {config.plan.device} the plan is for, as in "
            "--config.parallel.devices=8."
        )
