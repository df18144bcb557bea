"""From a config and its data to the compiled steps: the parts of a run, put together once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from alexnet_jax import durations
from alexnet_jax.data.pipeline import Batch, ReadOptions
from alexnet_jax.data.source import DataOptions
from alexnet_jax.data.statistics import StatisticsOptions
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet, create_model, list_parameter_paths
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.parallel import mesh as meshes
from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.preprocessing.color import ColorNoise
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.schedule import make_rates, row_of
from alexnet_jax.training.state import TrainState, abstract_state, create_state, state_specs
from alexnet_jax.training.step import StepOptions, make_train_step


@dataclasses.dataclass(frozen=True)
class Durations:
    """The lengths of a run in steps."""

    total: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    stuck_after: int


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run that its config fixes.

    Attributes:
      model: the net on one device.
      augmentation: how pictures become its input.
      layout: the devices and how they are used.
      optimizer: the update rule and its learning rates.
      durations: the lengths of the run.
      seed: of the run.
      batch_size: examples a step, over all devices.
      accumulate: parts in which a step takes its batch.
      image_shape: (height, width, channels) of the pictures as the host hands them over.
      statistics: the shape of each of the training split's statistics, float32 arrays.
    """

    model: AlexNet
    augmentation: Augmentation
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
        options = config.model.to_dict()
        model = create_model(**{**options, "num_classes": options["num_classes"] or num_classes})
        image_shape = (config.data.image_size, config.data.image_size, config.data.channels)
        lengths = durations_of(config, num_examples)
        return cls(
            model=model,
            augmentation=_augmentation(config, model.spec.input_size, num_examples),
            layout=meshes.make_layout(
                config.parallel.strategy, config.parallel.devices, config.parallel.micro_batches
            ),
            optimizer=_optimizer(config, model.spec, num_examples, lengths.total),
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
        """Returns the state at step 0, laid out on the mesh."""
        specs = state_specs(self._shapes(), self.model.spec, self.layout)
        create = jax.jit(
            lambda statistics: create_state(self.model, self.optimizer, statistics, self.seed),
            out_shardings=meshes.shardings(specs, self.mesh),
        )
        return create(dict(statistics))

    def abstract_state(self) -> TrainState:
        """Returns the shapes, types and places of the state."""
        return abstract_state(self._shapes(), self.model.spec, self.layout)

    def _shapes(self) -> TrainState:
        return jax.eval_shape(
            lambda statistics: create_state(self.model, self.optimizer, statistics, self.seed),
            {
                name: jax.ShapeDtypeStruct(shape, np.float32)
                for name, shape in self.statistics.items()
            },
        )

    def abstract_batch(self, batch_size: int | None = None) -> Batch:
        """Returns the shapes, types and places of a global batch."""
        size = batch_size or self.batch_size
        sharding = NamedSharding(self.mesh, P("data"))

        def shape(dtype: Any, *rest: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *rest), dtype, sharding=sharding)

        return Batch(
            images=shape(np.uint8, *self.image_shape),
            labels=shape(np.int32),
            mask=shape(np.float32),
            stream_position=shape(np.uint32),
        )

    def compile_train_step(self, state: TrainState) -> jax.stages.Compiled:
        """Compiles the train step, which donates its state, for a state or its shapes."""
        step = make_train_step(
            self.model,
            self.optimizer,
            self.augmentation,
            self.layout,
            StepOptions(self.durations.log_every, self.accumulate),
        )
        places = jax.tree.map(lambda array: array.sharding, state)
        jitted = jax.jit(
            step, donate_argnums=0, out_shardings=(places, NamedSharding(self.mesh, P()))
        )
        return jitted.lower(state, self.abstract_batch()).compile()

    def training_images(self, state: TrainState, batch: Batch) -> np.ndarray:
        """Returns what the net is trained on at this state, as uint8 images to look at.

        Args:
          state: that of the step.
          batch: rows of the batch of that step, numpy arrays.

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


def data_options(config: ConfigDict) -> DataOptions:
    """Returns what opens the splits that a full config names."""
    names = [field.name for field in dataclasses.fields(DataOptions)]
    return DataOptions(**{name: config.data[name] for name in names})


def read_options(config: ConfigDict) -> ReadOptions:
    """Returns how a full config has batches read ahead."""
    return ReadOptions(config.data.threads, config.data.prefetch, config.data.processes)


def statistics_options(config: ConfigDict) -> StatisticsOptions:
    """Returns which statistics of the training split a full config needs."""
    options = config.augment
    return StatisticsOptions(
        mean=options.mean,
        channel_mean=tuple(options.channel_mean),
        colors=options.color_noise != "none",
        num_examples=options.mean_examples,
    )


def durations_of(config: ConfigDict, num_examples: int) -> Durations:
    """Returns the durations of a run in steps.

    Args:
      config: the full tree.
      num_examples: size of the training split.

    Raises:
      InputError: the run is too long.
    """
    train = config.train
    texts = (train.duration, train.log_every, train.evaluate_every, config.checkpoint.every)
    steps = [durations.to_steps(text, train.batch_size, num_examples) for text in texts]
    if steps[0] >= durations.MAX_STEPS:
        raise InputError(
            f"train.duration: {train.duration!r} of {num_examples:,} examples in batches of "
            f"{train.batch_size} are more than {durations.MAX_STEPS:,} steps, the maximum."
        )
    if train.stuck_after:
        steps.append(durations.to_steps(train.stuck_after, train.batch_size, num_examples))
    else:
        steps.append(min(5000, max(1, steps[0] // 5)))
    return Durations(*steps)


def _augmentation(config: ConfigDict, crop_size: int, num_examples: int) -> Augmentation:
    augment, color = config.augment, None
    if augment.color_noise != "none":
        until = augment.color_noise_until
        until = until and durations.to_steps(until, config.train.batch_size, num_examples)
        color = ColorNoise(augment.color_noise, augment.color_noise_std, until)
    return Augmentation(
        crop_size=crop_size,
        random_crop=augment.random_crop,
        random_flip=augment.random_flip,
        scale=tuple(1 / std for std in augment.channel_std) or augment.scale,
        crop_group_size=augment.crop_group_size,
        rotation_degrees=augment.rotation_degrees,
        mean_at_crop=augment.mean == "image_at_crop",
        color=color,
    )


def _optimizer(
    config: ConfigDict, spec: ModelSpec, num_examples: int, total_steps: int
) -> Optimizer:
    """Returns the update rule with the learning rates that apply to a parameter of the model."""
    options, batch_size = config.optimizer, config.train.batch_size
    rows = options.rates.to_dict()  # in order, which iterating a ConfigDict would not keep
    patterns = {name: row["pattern"] for name, row in rows.items()}
    used = {row_of(patterns, parameter) for parameter in list_parameter_paths(spec)}
    return Optimizer(
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        decay_pattern=options.decay_pattern,
        rate_inside_velocity=options.rate_inside_velocity,
        rates=make_rates(
            {name: row for name, row in rows.items() if name in used},
            total_steps,
            lambda duration: durations.to_steps(duration, batch_size, num_examples),
        ),
    )
