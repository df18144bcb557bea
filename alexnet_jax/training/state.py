"""The whole state of a run as one pytree: everything that is needed to resume it."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.models import AlexNet, ModelSpec
from alexnet_jax.parallel.mesh import Layout, parameter_specs, shardings
from alexnet_jax.training.metrics import Metrics
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.schedule import Plateau


@flax.struct.dataclass
class TrainState:
    """The state between two steps.

    Attributes:
      step: int32, steps done.
      params: parameters of the model, in their global shapes.
      batch_stats: running statistics of its batch norms; empty without any.
      opt_state: state of the update rule.
      statistics: what preprocessing needs of the training split: `mean` and so on.
      key: typed random key of the run; every draw folds the position in the stream into it.
      plateau: the learning-rate controller.
      window: metrics since the last train line of the log.
      first_bad_step: int32, the first step whose loss or update was not finite, or -1.
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
        """The variables of the Flax module."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: AlexNet, optimizer: Optimizer, statistics: Mapping[str, np.ndarray], seed: int
) -> TrainState:
    """Returns the state at step 0. Traceable, so that `jax.eval_shape` gives its shapes.

    Args:
      model: the model on one device.
      optimizer: the update rule.
      statistics: those of the training split.
      seed: determines the initial parameters and all later draws.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    size = model.spec.input_size
    variables = model.init(init_key, jnp.zeros((1, size, size, model.spec.channels)))
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.rule(model.spec).init(params),
        statistics={name: jnp.asarray(array) for name, array in statistics.items()},
        key=run_key,
        plateau=Plateau.initial(),
        window=Metrics.zero(),
        first_bad_step=jnp.int32(-1),
    )


def abstract_state(state: TrainState, spec: ModelSpec, layout: Layout) -> TrainState:
    """Returns the shapes, types and shardings of a state, to which a checkpoint is restored."""
    return jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        state,
        shardings(parameter_specs(state, spec, layout), layout.mesh),
    )
