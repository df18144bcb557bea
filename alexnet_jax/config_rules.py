"""Values of a config that contradict each other: every one found, each told in a sentence."""

import itertools
import re
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from alexnet_jax import durations, schema
from alexnet_jax.config import DURATIONS
from alexnet_jax.models import variants
from alexnet_jax.models.summary import TooSmallError, layer_table
from alexnet_jax.training.schedule import row_of


def contradictions(config: ConfigDict, num_devices: int) -> list[str]:
    """Returns a sentence for each rule the config breaks, the key's path first.

    Args:
      config: a full tree whose values each have their right type.
      num_devices: devices the run may use.
    """
    return [
        *_durations(config),
        *_model(config),
        *_rates(config),
        *_parallel(config, num_devices),
        *_evaluation(config),
    ]


def _durations(config: ConfigDict) -> Iterator[str]:
    flat = schema.flatten(config.to_dict())
    texts = {path: flat[path] for path in DURATIONS}
    for row, rate in config.optimizer.rates.items():
        for place, text in enumerate(rate.boundaries):
            texts[f"optimizer.rates.{row}.boundaries[{place}]"] = text
    for path, text in texts.items():
        try:
            durations.parse(text)
        except ValueError as error:
            yield f"{path}: {error}"


def _model(config: ConfigDict) -> Iterator[str]:
    names = list(variants.NETWORKS)
    if config.model.name not in names:
        hint = schema.suggestion(config.model.name, names)
        yield f"model.name: {config.model.name!r} is not one of {', '.join(names)}.{hint}"
        return
    network = variants.NETWORKS[config.model.name]
    if config.data.channels != network.channels:
        yield (
            f"data.channels: {config.data.channels}, but the net {config.model.name} takes "
            f"{network.channels}."
        )
    if config.data.image_size < network.input_size:
        yield (
            f"data.image_size: {config.data.image_size} pixels are fewer than the "
            f"{network.input_size} that the net {config.model.name} takes."
        )
    try:
        layer_table(network, 1000)
    except TooSmallError as error:
        yield f"model.name: {error}."


def _rates(config: ConfigDict) -> Iterator[str]:
    rows = config.optimizer.rates
    for name, rate in rows.items():
        path = f"optimizer.rates.{name}"
        if not rate.pattern:
            hint = schema.suggestion(name, [other for other in rows if other != name])
            yield f"{path}.pattern: is empty: say which parameters take this row.{hint}"
        if rate.schedule == "step":
            yield from _unordered(f"{path}.boundaries", rate.boundaries)
        if rate.schedule == "step" and len(rate.boundaries) != len(rate.later_rates):
            yield (
                f"{path}.later_rates: {len(rate.later_rates)} rates for "
                f"{len(rate.boundaries)} boundaries; each needs the rate from there on."
            )
    texts = {f"optimizer.rates.{name}.pattern": rate.pattern for name, rate in rows.items()}
    texts["optimizer.decay_pattern"] = config.optimizer.decay_pattern
    wrong = [mistake for path, text in texts.items() for mistake in _not_a_pattern(path, text)]
    yield from wrong
    if not wrong:
        yield from _without_rate(config)


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


def _without_rate(config: ConfigDict) -> Iterator[str]:
    network = variants.NETWORKS.get(config.model.name)
    patterns = {name: rate.pattern for name, rate in config.optimizer.rates.items()}
    for layer in network.layers if network else ():
        if isinstance(layer, (variants.Conv, variants.Dense)):
            for parameter in (f"{layer.name}/kernel", f"{layer.name}/bias"):
                if row_of(patterns, parameter) is None:
                    yield f"optimizer.rates: no row's pattern matches the parameter {parameter}."


def _parallel(config: ConfigDict, num_devices: int) -> Iterator[str]:
    wanted, strategy = config.parallel.devices, config.parallel.strategy
    if wanted is not None and wanted > num_devices:
        yield f"parallel.devices: {wanted} are asked for, {num_devices} are here."
    devices = 1 if strategy == "single" else min(wanted or num_devices, num_devices)
    if strategy == "tower":
        if devices % 2:
            yield (
                f"parallel.strategy: 'tower' needs an even number of devices, not {devices}; "
                "on a CPU set parallel.cpu_devices=2."
            )
        network = variants.NETWORKS.get(config.model.name)
        if network and network.towers != 2:
            yield f"parallel.strategy: the net {config.model.name} has no two towers."
        for layer in network.layers if network else ():
            if isinstance(layer, variants.Conv) and layer.features % 2:
                yield (
                    f"parallel.strategy: two towers cannot share the {layer.features} maps of "
                    f"{layer.name}."
                )
        devices //= 2
    if devices and config.train.batch_size % devices:
        yield (
            f"train.batch_size: {config.train.batch_size} does not divide by the {devices} "
            "devices that share a batch."
        )


def _evaluation(config: ConfigDict) -> Iterator[str]:
    which = config.evaluation.checkpoint
    if which not in ("best", "latest") and not which.isdecimal():
        yield f"evaluation.checkpoint: {which!r} is not 'best', 'latest' or a step number."
