"""SGD with momentum in the order of the paper and of Optax, with a learning rate per parameter."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alexnet_jax.models import parameter_paths
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.training.schedule import Rate, row_of


class VelocityState(NamedTuple):
    """The velocity of each parameter."""

    velocity: optax.Params


def scale_by_rates() -> optax.GradientTransformationExtraArgs:
    """Multiplies each update by its own learning rate, given as `update(..., rates=tree)`."""

    def update(updates: Any, state: Any, params: Any = None, *, rates: Any, **_: Any) -> Any:
        return jax.tree.map(jnp.multiply, updates, rates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def momentum_unless_frozen(momentum: float) -> optax.GradientTransformationExtraArgs:
    """Accumulates a velocity, but skips parameters whose learning rate is 0.

    A rate of 0 skips the whole update in the authors' code: neither decay nor momentum moves the
    parameter, and its velocity is kept (weights.cu:146-198).
    """

    def update(updates: Any, state: Any, params: Any = None, *, rates: Any, **_: Any) -> Any:
        # In this order: that of `optax.trace` rounds differently where XLA fuses it.
        velocity = jax.tree.map(
            lambda v, u, rate: jnp.where(rate > 0, momentum * v + u, v),
            *(state.velocity, updates, rates),
        )
        moves = jax.tree.map(lambda v, rate: jnp.where(rate > 0, v, 0), velocity, rates)
        return moves, VelocityState(velocity)

    return optax.GradientTransformationExtraArgs(
        lambda params: VelocityState(jax.tree.map(jnp.zeros_like, params)), update
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How parameters are updated.

    Attributes:
      momentum: share of the velocity kept at each step.
      weight_decay: coefficient of the decayed parameters.
      decay_pattern: regular expression of the paths of the parameters that decay.
      rate_inside_velocity: True: v <- momentum v - decay rate w - rate g, w <- w + v (section 5),
        so a change of the rate reaches the velocity step by step. False: `optax.sgd`, whose rate
        multiplies the whole velocity.
      rates: rows of learning rates; the first that matches a parameter's path applies.
    """

    momentum: float
    weight_decay: float
    decay_pattern: str
    rate_inside_velocity: bool
    rates: Mapping[str, Rate]

    def is_trained(self, spec: ModelSpec, params: Any) -> Any:
        """Returns whether each parameter's rate is ever above 0, as a tree; others are frozen."""
        zero = {name: rate.is_zero for name, rate in self.rates.items()}
        return jax.tree.map(lambda row: not zero.get(row), self._rows(spec, params))

    def rule(self, spec: ModelSpec) -> optax.GradientTransformationExtraArgs:
        """Returns the update rule of a model; its `update` takes `rates`, one per parameter.

        Frozen parameters have no velocity, and their updates are their gradients, which are 0.
        """

        def decayed(params: Any) -> Any:
            paths = parameter_paths(spec, params)
            return jax.tree.map(lambda path: bool(re.search(self.decay_pattern, path)), paths)

        decay = optax.add_decayed_weights(self.weight_decay, mask=decayed)
        if self.rate_inside_velocity:
            velocity = momentum_unless_frozen(self.momentum)
            rule = optax.chain(decay, scale_by_rates(), velocity, optax.scale(-1.0))
        else:
            rule = optax.chain(decay, optax.sgd(1.0, momentum=self.momentum), scale_by_rates())
        if not any(rate.is_zero for rate in self.rates.values()):
            return rule
        trained = functools.partial(self.is_trained, spec)
        return optax.masked(rule, trained, mask_compatible_extra_args=True)

    def rates_at(
        self, spec: ModelSpec, params: Any, step: jax.Array, plateau_scale: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        """Returns the learning rate of each row, and the tree of each parameter's rate."""
        by_row = {name: rate.at(step, plateau_scale) for name, rate in self.rates.items()}
        return by_row, jax.tree.map(by_row.__getitem__, self._rows(spec, params))

    def _rows(self, spec: ModelSpec, params: Any) -> Any:
        """Returns the name of each parameter's row."""
        patterns = {name: rate.pattern for name, rate in self.rates.items()}
        return jax.tree.map(functools.partial(row_of, patterns), parameter_paths(spec, params))
