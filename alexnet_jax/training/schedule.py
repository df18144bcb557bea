"""Learning rates as functions of the step, one for each row of the config's table."""

import dataclasses
import re
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Rate:
    """A row of the table with its durations in steps.

    Attributes:
      pattern: regular expression of the parameters it is for.
      schedule: constant, step, dexp or plateau.
      rate: learning rate at step 0.
      boundaries, step_values: step: the rate from each of these steps on.
      factor, num_stages: dexp: falls by `factor` in all over this number of stages.
      total_steps: length of the run.
    """

    pattern: str
    schedule: str
    rate: float
    boundaries: tuple[int, ...]
    step_values: tuple[float, ...]
    factor: float
    num_stages: int
    total_steps: int

    def at(self, step: jax.Array, plateau_scale: jax.Array) -> jax.Array:
        """Returns the float32 learning rate at a step.

        Args:
          step: int scalar.
          plateau_scale: what the plateau controller has multiplied its rates by so far.
        """
        if self.schedule == "plateau":
            return self.rate * plateau_scale
        if self.schedule == "step":
            reached = jnp.sum(step >= jnp.array(self.boundaries, jnp.int32))
            return jnp.array([self.rate, *self.step_values], jnp.float32)[reached]
        if self.schedule == "dexp":  # authors' lr.cu:132-151
            level = jnp.minimum(step * self.num_stages // self.total_steps, self.num_stages - 1)
            rates = [
                self.rate * self.factor ** (-index / (self.num_stages - 1))
                for index in range(self.num_stages)
            ]
            return jnp.array(rates, jnp.float32)[level]
        return jnp.float32(self.rate)


def row_of(patterns: Mapping[str, str], path: str) -> str | None:
    """Returns the name of the row with the longest pattern that a parameter's path matches."""
    matching = [name for name, pattern in patterns.items() if re.search(pattern, path)]
    return max(matching, key=lambda name: len(patterns[name]), default=None)


@flax.struct.dataclass
class Plateau:
    """Divides rates when the validation top-1 has stopped rising; decided once an evaluation.

    Attributes:
      scale: what the rates of schedule "plateau" are multiplied by.
      best: best top-1 so far, a fraction.
      waited: evaluations since then.
    """

    scale: jax.Array
    best: jax.Array
    waited: jax.Array

    @classmethod
    def start(cls) -> "Plateau":
        """Returns the controller before the first evaluation."""
        return cls(jnp.float32(1.0), jnp.float32(-jnp.inf), jnp.int32(0))

    def observe(self, top1: float, *, factor: float, patience: int, threshold: float) -> "Plateau":
        """Returns the controller after an evaluation; see config.optimizer.plateau."""
        better = top1 > self.best + threshold
        waited = jnp.where(better, 0, self.waited + 1)
        drop = waited >= patience
        return Plateau(
            scale=jnp.where(drop, self.scale * factor, self.scale).astype(jnp.float32),
            best=jnp.where(better, top1, self.best).astype(jnp.float32),
            waited=jnp.where(drop, 0, waited).astype(jnp.int32),
        )
