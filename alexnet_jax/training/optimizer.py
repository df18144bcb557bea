"""SGD with momentum in the order of the paper and of Optax, a learning rate a parameter."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class VelocityState(NamedTuple):
    """The velocity of each parameter."""

    velocity: optax.Params


def scale_by_rates() -> optax.GradientTransformationExtraArgs:
    """Multiplies each update by its own learning rate, given as `update(..., rates=tree)`."""

    def update(updates: Any, state: Any, params: Any = None, *, rates: Any, **_: Any) -> Any:
        del params
        return jax.tree.map(jnp.multiply, updates, rates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def momentum_unless_frozen(momentum: float) -> optax.GradientTransformationExtraArgs:
    """Adds up a velocity, but leaves it and the parameter alone where the rate is 0.

    A learning rate of 0 skips the update wholly in the authors' code: no decay, no further move by
    momentum (weights.cu:146-198).
    """

    def update(updates: Any, state: Any, params: Any = None, *, rates: Any, **_: Any) -> Any:
        del params
        velocity = jax.tree.map(
            lambda v, u, rate: jnp.where(rate > 0, momentum * v + u, v),
            state.velocity,
            updates,
            rates,
        )
        moves = jax.tree.map(lambda v, rate: jnp.where(rate > 0, v, 0), velocity, rates)
        return moves, VelocityState(velocity)

    return optax.GradientTransformationExtraArgs(
        lambda params: VelocityState(jax.tree.map(jnp.zeros_like, params)), update
    )


def parameter_path(path: Any) -> str:
    """Returns a parameter's name as rules write it: 'conv1/kernel'."""
    return "/".join(str(part.key) for part in path)


def make_optimizer(
    rule: str, momentum: float, weight_decay: float, decay_pattern: str
) -> optax.GradientTransformationExtraArgs:
    """Returns the update rule; its `update` takes `rates`, a learning rate for each parameter.

    Args:
      rule: "paper": v <- momentum v - decay rate w - rate g, w <- w + v (section 5), so a change of
        rate reaches the velocity only step by step; "sgd": `optax.sgd`, whose rate multiplies the
        whole velocity at once.
      momentum: share of the velocity kept.
      weight_decay: coefficient of the decayed parameters.
      decay_pattern: regular expression of the paths of the parameters that decay.
    """

    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: bool(re.search(decay_pattern, parameter_path(path))), params
        )

    decay = optax.add_decayed_weights(weight_decay, mask=decayed)
    if rule == "sgd":
        return optax.chain(decay, optax.sgd(1.0, momentum=momentum), scale_by_rates())
    return optax.chain(decay, scale_by_rates(), momentum_unless_frozen(momentum), optax.scale(-1.0))
