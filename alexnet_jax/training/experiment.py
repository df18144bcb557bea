"""From a config and its data to the compiled steps: the parts of a run, put together once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from alexnet_jax.data.augment import Augmentation
from alexnet_jax.data.pipeline import Batch
from alexnet_jax.models import AlexNet, create_model
from alexnet_jax.parallel import mesh as meshes
from alexnet_jax.training.loop import Plan
from alexnet_jax.training.optimizer import make_optimizer
from alexnet_jax.training.schedule import Rate, rates_from_config
from alexnet_jax.training.state import TrainState, abstract_state, create_state, state_specs
from alexnet_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run that its config fixes.

    Attributes:
      model: the net on one device.
      augmentation: how pictures become its input.
      mesh: the devices.
      optimizer, rates: the update rule and its learning rates.
      plan: the lengths of the run.
      seed: of the run.
      batch_size: examples a step, over all devices.
      image_shape: (height, width, channels) of the pictures as the host hands them over.
      mean: what is subtracted from them: "image", "channel" or "none".
    """

    model: AlexNet
    augmentation: Augmentation
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    rates: dict[str, Rate]
    plan: Plan
    seed: int
    batch_size: int
    image_shape: tuple[int, int, int]
    mean: str

    @classmethod
    def from_config(cls, config: ConfigDict, num_classes: int, num_examples: int) -> "Experiment":
        """Puts the parts together.

        Args:
          config: the full tree, found free of mistakes.
          num_classes: classes of the data.
          num_examples: size of the training split.
        """
        chosen = config.model.to_dict()
        model = create_model(**{**chosen, "num_classes": chosen["num_classes"] or num_classes})
        plan = Plan.from_config(config, num_examples)
        optimizer = config.optimizer
        return cls(
            model=model,
            augmentation=Augmentation(
                crop_size=model.network.input_size,
                random_crop=config.augment.random_crop,
                random_flip=config.augment.random_flip,
                scale=config.augment.scale,
            ),
            mesh=meshes.make_mesh(config.parallel.strategy, config.parallel.devices),
            optimizer=make_optimizer(
                optimizer.rule,
                optimizer.momentum,
                optimizer.weight_decay,
                optimizer.decay_pattern,
            ),
            rates=rates_from_config(
                optimizer.rates.to_dict(), config.train.batch_size, num_examples, plan.total
            ),
            plan=plan,
            seed=config.seed,
            batch_size=config.train.batch_size,
            image_shape=(config.data.image_size, config.data.image_size, config.data.channels),
            mean=config.augment.mean,
        )

    def initial_state(self, statistics: Mapping[str, np.ndarray]) -> TrainState:
        """Returns the state at step 0, laid out on the mesh."""
        specs = state_specs(self._shapes(), self.mesh)
        create = jax.jit(
            lambda statistics: create_state(self.model, self.optimizer, statistics, self.seed),
            out_shardings=meshes.shardings(specs, self.mesh),
        )
        return create(dict(statistics))

    def abstract_state(self) -> TrainState:
        """Returns the shapes, types and places of the state."""
        return abstract_state(self._shapes(), self.mesh)

    def _shapes(self) -> TrainState:
        shape = self.image_shape if self.mean == "image" else (1, 1, self.image_shape[-1])
        return jax.eval_shape(
            lambda statistics: create_state(self.model, self.optimizer, statistics, self.seed),
            {"mean": jax.ShapeDtypeStruct(shape, np.float32)},
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
            weights=shape(np.float32),
            positions=shape(np.uint32),
        )

    def compile_train_step(self, state: TrainState) -> jax.stages.Compiled:
        """Compiles the train step, which donates its state, for a state or its shapes."""
        step = make_train_step(
            self.model,
            self.optimizer,
            self.rates,
            self.augmentation,
            self.mesh,
            self.plan.log_every,
        )
        places = jax.tree.map(lambda array: array.sharding, state)
        jitted = jax.jit(
            step, donate_argnums=0, out_shardings=(places, NamedSharding(self.mesh, P()))
        )
        return jitted.lower(state, self.abstract_batch()).compile()
