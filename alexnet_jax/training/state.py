"""All that a run needs to go on, as one pytree."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from alexnet_jax.models import AlexNet
from alexnet_jax.parallel import mesh as meshes
from alexnet_jax.training.metrics import Metrics
from alexnet_jax.training.schedule import Plateau


@flax.struct.dataclass
class TrainState:
    """The state between two steps.

    Attributes:
      step: int32, steps done.
      params: the net's parameters, in their global shapes.
      batch_stats: the running statistics of its batch norms; empty where it has none.
      opt_state: the optimizer's, of `make_optimizer`.
      statistics: what preprocessing needs of the training split, of `statistics_of`.
      key: typed random key of the run; every draw folds the place in the stream into it.
      plateau: the learning-rate controller.
      window: metrics since the last train line of the log.
      first_bad_step: int32, the first step whose loss or gradients were not finite, or -1.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    statistics: Mapping[str, jax.Array]
    key: jax.Array
    plateau: Plateau
    window: Metrics
    first_bad_step: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What the Flax module is applied to."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: AlexNet,
    optimizer: optax.GradientTransformation,
    statistics: Mapping[str, np.ndarray],
    seed: int,
) -> TrainState:
    """Returns the state at step 0. Traceable, so that `jax.eval_shape` gives its shapes.

    Args:
      model: the net on one device.
      optimizer: the update rule.
      statistics: of the training split.
      seed: fixes the weights and all later draws.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    size = model.spec.input_size
    images = jnp.zeros((1, size, size, model.spec.channels))
    variables = model.init(init_key, images)
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        statistics={name: jnp.asarray(array) for name, array in statistics.items()},
        key=run_key,
        plateau=Plateau.start(),
        window=Metrics.zero(),
        first_bad_step=jnp.int32(-1),
    )


def state_specs(state: TrainState, layout: meshes.Layout) -> TrainState:
    """Returns a PartitionSpec for each array of a state, or of its shapes."""
    whole = jax.tree.map(lambda _: P(), state)
    return dataclasses.replace(
        whole,
        params=meshes.parameter_specs(state.params, layout),
        batch_stats=meshes.parameter_specs(state.batch_stats, layout),
        opt_state=meshes.parameter_specs(state.opt_state, layout),
    )


def abstract_state(state: TrainState, layout: meshes.Layout) -> TrainState:
    """Returns the shapes, types and places of a state, which a checkpoint is restored to."""
    return jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        state,
        meshes.shardings(state_specs(state, layout), layout.mesh),
    )
