"""Learning rates by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.training.schedule import Plateau, Rate, row_of

ROW = {
    "pattern": "kernel",
    "schedule": "constant",
    "rate": 0.01,
    "boundaries": (),
    "step_values": (),
    "factor": 250.0,
    "num_stages": 4,
}


def rate(total: int = 1000, **changes: Any) -> Rate:
    return Rate(**(ROW | changes), total_steps=total)


def curve(row: Rate, steps: int, scale: float = 1.0) -> np.ndarray:
    at = jax.jit(jax.vmap(lambda step: row.at(step, jnp.float32(scale))))
    rates = at(jnp.arange(steps, dtype=jnp.int32))
    assert rates.dtype == jnp.float32
    return np.asarray(rates)


def test_constant() -> None:
    np.testing.assert_array_equal(curve(rate(), 20, scale=0.1), np.full(20, 0.01, np.float32))


def test_step_changes_at_its_boundaries_and_freezes_at_0() -> None:
    row = rate(
        schedule="step",
        boundaries=(3, 10, 15),
        step_values=(0.001, 1e-5, 0.0),
    )
    expected = [0.01] * 3 + [0.001] * 7 + [1e-5] * 5 + [0.0] * 5
    np.testing.assert_array_equal(curve(row, 20, scale=0.1), np.array(expected, np.float32))


def test_dexp_is_that_of_configuration_170() -> None:
    """Levels and their rates as the authors' log has them: 250-fold, changed each quarter."""
    rates = curve(rate(schedule="dexp"), 1001)
    levels = (0.01, 0.0015874, 0.00025198, 0.00004)
    np.testing.assert_allclose(rates[:1000], np.repeat(levels, 250), rtol=2e-5)
    assert rates[1000] == rates[999]


def test_dexp_of_lengths_that_the_levels_do_not_divide() -> None:
    rates = curve(rate(total=10, schedule="dexp", num_stages=3, factor=100.0), 10)
    np.testing.assert_allclose(rates, [1e-2] * 4 + [1e-3] * 3 + [1e-4] * 3, rtol=1e-5)


def test_plateau_multiplies_its_own_rates() -> None:
    np.testing.assert_allclose(curve(rate(schedule="plateau"), 3, scale=0.1), [0.001] * 3)


def scales(accuracies: list[float], **changes: float) -> list[float]:
    options = {"factor": 0.1, "patience": 2, "threshold": 0.01} | changes
    plateau, found = Plateau.start(), []
    for top1 in accuracies:
        plateau = plateau.observe(top1, **options)
        found.append(float(plateau.scale))
    return found


def test_plateau_waits_then_divides_then_waits_anew() -> None:
    seen = [0.2, 0.3, 0.3, 0.29, 0.3, 0.3, 0.4, 0.3, 0.3]
    assert scales(seen) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_plateau_counts_only_gains_above_the_threshold_over_the_best() -> None:
    assert scales([0.3, 0.305, 0.309]) == pytest.approx([1, 1, 0.1])
    assert scales([0.3, 0.305, 0.32, 0.2]) == pytest.approx([1, 1, 1, 1])
    assert scales([0.0, 0.0], patience=1, factor=0.5) == pytest.approx([1, 0.5])


def test_plateau_keeps_its_types() -> None:
    """Else the train step would meet types that it was not compiled for."""
    before, after = (
        Plateau.start(),
        Plateau.start().observe(0.5, factor=0.1, patience=1, threshold=0),
    )
    assert jax.tree.map(jnp.result_type, before) == jax.tree.map(jnp.result_type, after)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("conv1/kernel", "first"),
        ("conv2/kernel", "weights"),
        ("fc8/kernel", "last"),
        ("conv1/bias", "biases"),
        ("scale", None),
    ],
)
def test_a_parameter_takes_the_row_of_the_longest_match(path: str, row: str | None) -> None:
    patterns = {"weights": "kernel", "first": "conv1/kernel", "biases": "bias", "last": "fc[678]/k"}
    assert row_of(patterns, path) == row
    assert row_of(dict(reversed(patterns.items())), path) == row
