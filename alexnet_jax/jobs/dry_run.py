"""--dry_run: everything a run would do, told before it is done."""

import functools
import json
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import open_splits
from alexnet_jax.experiment import Experiment, data_options
from alexnet_jax.jobs.train import check_classes
from alexnet_jax.models.summary import as_table, layer_table
from alexnet_jax.training.schedule import Rate


def run(command: Command, console: Console) -> None:
    """Prints config, layer table, steps, schedule, memory and the first batch's shapes."""
    config = command.config
    say = functools.partial(console.print, markup=False, soft_wrap=True)
    console.print_json(json.dumps(config.to_dict()))
    train, _ = open_splits(data_options(config))
    check_classes(config, train)
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    model = experiment.model
    console.print(as_table(layer_table(model.spec, model.num_classes), config.model.name))
    plan, batch = experiment.plan, experiment.batch_size
    say(
        f"{len(train):,} training pictures of {len(train.class_names)} classes, {batch} a step, "
        f"{len(train) / batch:.1f} steps an epoch\n"
        f"{plan.total:,} steps; a log line every {plan.log_every}, an evaluation every "
        f"{plan.evaluate_every}, a checkpoint every {plan.checkpoint_every} steps"
    )
    for name, rate in experiment.rates.items():
        levels = ", ".join(f"{value:g} from step {step}" for step, value in levels_of(rate))
        say(f"rate of {name} (/{rate.pattern}/): {levels}")
    say(f"devices: {dict(experiment.mesh.shape)}")
    with console.status("Compiling the train step to estimate its memory ..."):
        needs = _memory(experiment)
        say(f"memory of a step on each device, estimated by the compiler: {needs}")
    first = TrainingBatches(train, config.seed, batch)[0].batch
    for name, array in first._asdict().items():
        say(f"first batch, {name}: {array.dtype}{list(array.shape)}")


def levels_of(rate: Rate) -> list[tuple[int, float]]:
    """Returns (first step, learning rate) of each level of a schedule."""
    starts = {
        "step": (0, *rate.boundaries),
        "dexp": tuple(
            -(-level * rate.total_steps // rate.num_stages) for level in range(rate.num_stages)
        ),
    }.get(rate.schedule, (0,))
    return [(step, float(rate.at(jnp.int32(step), jnp.float32(1.0)))) for step in starts]


def _memory(experiment: Experiment) -> str:
    """Says what the compiled step needs: the run's own step, so that the run finds it compiled."""
    analysis: Any = experiment.compile_train_step(experiment.abstract_state()).memory_analysis()
    mebibytes = 2.0**20
    return (
        f"{analysis.argument_size_in_bytes / mebibytes:,.0f} MiB state and batch, "
        f"{analysis.temp_size_in_bytes / mebibytes:,.0f} MiB activations and gradients"
    )
