"""From a config to the parts of a run, up to its compiled step: the one place that builds them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ml_collections import ConfigDict

from alexnet_jax import durations
from alexnet_jax.data.pipeline import Batch, ReadOptions
from alexnet_jax.data.source import DataOptions
from alexnet_jax.data.statistics import StatisticsOptions
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet, ModelSpec, create_model, list_parameter_paths
from alexnet_jax.parallel import mesh as meshes
from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.color import ColorNoise
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.schedule import make_rate, row_of
from alexnet_jax.training.state import TrainState, abstract_state, create_state
from alexnet_jax.training.step import make_gradient, make_loss, make_train_step

ToSteps = Callable[[str], int]  # from a duration such as "90 epochs"


@dataclasses.dataclass(frozen=True)
class Durations:
    """The lengths of a run in steps."""

    total: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    stuck_after: int

    def logs(self, step: int) -> bool:
        """Returns whether a train line is written at a step, as at the last one."""
        return step % self.log_every == 0 or step == self.total

    def evaluates(self, step: int) -> bool:
        """Returns whether the model is evaluated at a step, as at the last one."""
        return step % self.evaluate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Returns whether a checkpoint is saved at a step, as at the last one."""
        return step % self.checkpoint_every == 0 or step == self.total


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run that its config determines.

    Attributes:
      model: the model as one device runs it.
      augmentation: how images become its input.
      layout: the devices and how they are used.
      optimizer: the update rule and its learning rates.
      durations: the lengths of the run.
      seed: of the run.
      batch_size: examples per step, over all devices.
      accumulate: parts of a batch, one after another.
      image_shape: (height, width, channels) of the images as the host passes them on.
      statistics: the shape of each of the training split's statistics, float32 arrays.
    """

    model: AlexNet
    augmentation: augment.Augmentation
    layout: meshes.Layout
    optimizer: Optimizer
    durations: Durations
    seed: int
    batch_size: int
    accumulate: int
    image_shape: tuple[int, int, int]
    statistics: Mapping[str, tuple[int, ...]]

    @classmethod
    def from_config(cls, config: ConfigDict, num_classes: int, num_examples: int) -> "Experiment":
        """Builds the parts.

        Args:
          config: a full, valid tree.
          num_classes: classes of the data.
          num_examples: size of the training split.
        """
        options, parallel = config.model.to_dict(), config.parallel
        model = create_model(**{**options, "num_classes": options["num_classes"] or num_classes})
        to_steps = functools.partial(
            durations.to_steps, batch_size=config.train.batch_size, num_examples=num_examples
        )
        lengths = _durations(config, to_steps)
        image_shape = data_options(config).image_shape
        return cls(
            model=model,
            augmentation=_augmentation(config, model.spec.input_size, to_steps),
            layout=meshes.make_layout(parallel.strategy, parallel.devices, parallel.micro_batches),
            optimizer=_optimizer(config, model.spec, lengths.total, to_steps),
            durations=lengths,
            seed=config.seed,
            batch_size=config.train.batch_size,
            accumulate=config.train.accumulate,
            image_shape=image_shape,
            statistics=statistics_options(config).shapes(image_shape),
        )

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.layout.mesh

    def initial_state(self, statistics: Mapping[str, np.ndarray]) -> TrainState:
        """Returns the state at step 0, on the mesh."""
        shardings = jax.tree.map(lambda array: array.sharding, self.abstract_state())
        return jax.jit(self._create_state, out_shardings=shardings)(dict(statistics))

    def abstract_state(self) -> TrainState:
        """Returns the shapes, types and shardings of the state."""
        shapes = {
            name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in self.statistics.items()
        }
        state = jax.eval_shape(self._create_state, shapes)
        return abstract_state(state, self.model.spec, self.layout)

    def _create_state(self, statistics: Any) -> TrainState:
        return create_state(self.model, self.optimizer, statistics, self.seed)

    def abstract_batch(self) -> Batch:
        """Returns the shapes, types and shardings of a global batch."""
        sharding, rows = NamedSharding(self.mesh, P("data")), (self.batch_size,)
        array = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
        return Batch(
            images=array((*rows, *self.image_shape), np.uint8),
            labels=array(rows, np.int32),
            mask=array(rows, np.float32),
            stream_position=array(rows, np.uint32),
        )

    def compile_train_step(self, state: TrainState) -> jax.stages.Compiled:
        """Compiles the train step, which donates its state, for a state or its shapes."""
        loss = make_loss(self.model, self.augmentation, self.layout)
        gradient = make_gradient(loss, self.layout, self.accumulate)
        log_every = self.durations.log_every
        step = make_train_step(self.model.spec, gradient, self.optimizer, log_every)
        shardings = jax.tree.map(lambda array: array.sharding, state), NamedSharding(self.mesh, P())
        jitted = jax.jit(step, donate_argnums=0, out_shardings=shardings)
        return jitted.lower(state, self.abstract_batch()).compile()

    def training_images(self, state: TrainState, batch: Batch) -> np.ndarray:
        """Returns what the model is trained on at this state, as uint8 images to look at.

        Args:
          state: that of the step.
          batch: examples of the batch of that step, numpy arrays.

        Returns:
          uint8[rows, crop, crop, channels]: augmented, with the mean added back.
        """

        @jax.jit
        def augmented(key: jax.Array, step: jax.Array, statistics: Any, batch: Batch) -> jax.Array:
            keys = augment.ExampleKeys.at(
                key, batch.stream_position, self.augmentation.crop_group_size
            )
            view = augment.training_view(keys, batch.images, statistics, self.augmentation, step)
            return augment.to_images(*view, self.augmentation)

        of_state = jax.device_get((state.key, state.step, state.statistics))
        return np.asarray(augmented(*of_state, batch))


def _build(record: Any, section: ConfigDict, **others: Any) -> Any:
    """Returns a dataclass of other values and of the keys in a section with its fields' names."""
    names = [field.name for field in dataclasses.fields(record)]
    return record(**{name: section[name] for name in names if name in section} | others)


def data_options(config: ConfigDict) -> DataOptions:
    """Returns the options that open the splits of a config."""
    return _build(DataOptions, config.data)


def read_options(config: ConfigDict) -> ReadOptions:
    """Returns how batches are read ahead."""
    return _build(ReadOptions, config.data)


def statistics_options(config: ConfigDict) -> StatisticsOptions:
    """Returns which statistics of the training split are needed."""
    colors, num_examples = config.augment.color_noise != "none", config.augment.mean_examples
    return _build(StatisticsOptions, config.augment, colors=colors, num_examples=num_examples)


def _durations(config: ConfigDict, to_steps: ToSteps) -> Durations:
    train, total = config.train, to_steps(config.train.duration)
    if total >= durations.MAX_STEPS:
        raise InputError(
            f"train.duration: {train.duration!r} is {durations.MAX_STEPS:,} steps or more."
        )
    return Durations(
        total=total,
        log_every=to_steps(train.log_every),
        evaluate_every=to_steps(train.evaluate_every),
        checkpoint_every=to_steps(config.checkpoint.every),
        stuck_after=to_steps(train.stuck_after or f"{min(5000, max(50, total // 5))} steps"),
    )


def _augmentation(config: ConfigDict, crop_size: int, to_steps: ToSteps) -> augment.Augmentation:
    options, color = config.augment, None
    if options.color_noise != "none":
        until = options.color_noise_until and to_steps(options.color_noise_until)
        color = ColorNoise(options.color_noise, options.color_noise_std, until)
    return _build(
        augment.Augmentation,
        options,
        crop_size=crop_size,
        scale=tuple(1 / std for std in options.channel_std) or options.scale,
        mean_at_crop=options.mean == "image_at_crop",
        color=color,
    )


def _optimizer(
    config: ConfigDict, spec: ModelSpec, total_steps: int, to_steps: ToSteps
) -> Optimizer:
    """Returns the update rule with the learning rates that apply to a parameter of the model."""
    rows = config.optimizer.rates.to_dict()
    patterns = {name: row["pattern"] for name, row in rows.items()}
    used = {row_of(patterns, parameter) for parameter in list_parameter_paths(spec)}
    rates = {name: make_rate(rows[name], total_steps, to_steps) for name in rows if name in used}
    return _build(Optimizer, config.optimizer, rates=rates)
