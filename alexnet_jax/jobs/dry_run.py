"""Flag --dry_run: the full plan of a run, printed without running it."""

from typing import Any

from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import open_splits
from alexnet_jax.experiment import Experiment, data_options
from alexnet_jax.jobs.train import check_outputs
from alexnet_jax.models.summary import as_table, layer_table


def run(command: Command, console: Console) -> None:
    """Prints config, layer table, steps, learning rates, memory and the shapes of a batch.

    Raises:
      InputError: the data are missing or do not fit the model; nothing is printed before.
    """
    config = command.config
    train, _ = open_splits(data_options(config))
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    check_outputs(experiment, train)
    model, lengths, batch_size = experiment.model, experiment.durations, experiment.batch_size
    first = TrainingBatches(train, config.seed, batch_size)[0].batch
    with console.status("Compiling the train step to estimate its memory ..."):
        # the run then finds the compiled step in the cache
        compiled = experiment.compile_train_step(experiment.abstract_state())
    memory: Any = compiled.memory_analysis()
    console.print_json(data=config.to_dict())
    console.print(as_table(layer_table(model.spec, model.num_classes), config.model.name))
    console.print(
        f"{len(train):,} training images of {len(train.class_names)} classes, {batch_size} per "
        f"step, {len(train) / batch_size:.1f} steps per epoch\n"
        f"{lengths.total:,} steps; a log line every {lengths.log_every}, an evaluation every "
        f"{lengths.evaluate_every}, a checkpoint every {lengths.checkpoint_every} steps"
    )
    for name, rate in experiment.optimizer.rates.items():
        starts = zip((0, *rate.boundaries), rate.values, strict=True)
        stages = ", ".join(f"{value:g} from step {step}" for step, value in starts)
        console.print(f"rate of {name} ('{rate.pattern}'): {stages}")
    console.print(f"devices: {dict(experiment.mesh.shape)}")
    console.print(
        "memory of a step on each device, estimated by the compiler: "
        f"{memory.argument_size_in_bytes / 2**20:,.0f} MiB state and batch, "
        f"{memory.temp_size_in_bytes / 2**20:,.0f} MiB activations and gradients"
    )
    for name, array in first._asdict().items():
        console.print(f"first batch, {name}: {array.dtype}{list(array.shape)}")
