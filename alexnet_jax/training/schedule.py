"""Learning rates as functions of the step, one for each row of the config's table."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Rate:
    """A learning rate that is constant between boundaries, and the parameters that it is for.

    Attributes:
      pattern: regular expression of the paths of its parameters.
      boundaries: ascending steps at which the rate changes.
      values: the rate before the first boundary and from each boundary on.
      follows_plateau: whether the plateau controller scales it.
    """

    pattern: str
    boundaries: tuple[int, ...]
    values: tuple[float, ...]
    follows_plateau: bool = False

    @property
    def is_zero(self) -> bool:
        """Whether it is 0 at every step: its parameters are frozen."""
        return not any(self.values)

    def at(self, step: jax.Array, plateau_scale: jax.Array) -> jax.Array:
        """Returns the float32 learning rate at a step.

        Args:
          step: int scalar.
          plateau_scale: `Plateau.scale`.
        """
        passed = jnp.sum(step >= jnp.array(self.boundaries, jnp.int32))
        rate = jnp.array(self.values, jnp.float32)[passed]
        return rate * plateau_scale if self.follows_plateau else rate


def make_rate(row: Mapping[str, Any], total_steps: int, to_steps: Callable[[str], int]) -> Rate:
    """Returns the learning rate of a row of `config.optimizer.rates`.

    Args:
      row: {pattern, schedule, rate, boundaries, step_values, factor, num_stages}.
      total_steps: length of the run.
      to_steps: converts a duration to steps.
    """
    boundaries: tuple[int, ...] = ()
    values: tuple[float, ...] = (row["rate"],)
    if row["schedule"] == "step":
        boundaries = tuple(to_steps(duration) for duration in row["boundaries"])
        values += tuple(row["step_values"])
    elif row["schedule"] == "dexp":  # authors' lr.cu:132-151
        stages = row["num_stages"]
        boundaries = tuple(-(-stage * total_steps // stages) for stage in range(1, stages))
        values = tuple(
            row["rate"] * row["factor"] ** (-stage / (stages - 1)) for stage in range(stages)
        )
    return Rate(row["pattern"], boundaries, values, row["schedule"] == "plateau")


def row_of(patterns: Mapping[str, str], path: str) -> str | None:
    """Returns the name of the first row whose pattern is found in a parameter's path, or None."""
    return next((name for name, pattern in patterns.items() if re.search(pattern, path)), None)


@flax.struct.dataclass
class Plateau:
    """Lowers rates when the validation top-1 has stopped rising; updated once per evaluation.

    Attributes:
      scale: factor on the rates of schedule "plateau".
      best: best top-1 so far, a fraction.
      num_bad_evals: evaluations since then.
    """

    scale: jax.Array
    best: jax.Array
    num_bad_evals: jax.Array

    @classmethod
    def initial(cls) -> "Plateau":
        """Returns the controller before the first evaluation."""
        return cls(jnp.float32(1.0), jnp.float32(-jnp.inf), jnp.int32(0))

    def update(self, top1: float, *, factor: float, patience: int, threshold: float) -> "Plateau":
        """Returns the controller after an evaluation; see `config.optimizer.plateau`."""
        improved = top1 > self.best + threshold
        num_bad_evals = jnp.where(improved, 0, self.num_bad_evals + 1)
        drop = num_bad_evals >= patience
        return Plateau(
            scale=jnp.where(drop, self.scale * factor, self.scale).astype(jnp.float32),
            best=jnp.where(improved, top1, self.best).astype(jnp.float32),
            num_bad_evals=jnp.where(drop, 0, num_bad_evals).astype(jnp.int32),
        )
