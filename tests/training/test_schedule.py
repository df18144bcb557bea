"""Learning rates by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.durations import to_steps
from alexnet_jax.training.schedule import Plateau, Rate, make_rate, row_of

ROW = {
    "pattern": "kernel",
    "schedule": "constant",
    "rate": 0.01,
    "boundaries": (),
    "step_values": (),
    "factor": 250.0,
    "num_stages": 4,
}


def rate(total: int = 1000, examples: int = 100, batch: int = 10, **changes: Any) -> Rate:
    return make_rate(ROW | changes, total, lambda duration: to_steps(duration, batch, examples))


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
        boundaries=("3 steps", "1 epoch", "150 examples"),
        step_values=(0.001, 1e-5, 0.0),
    )
    assert row.boundaries == (3, 10, 15)
    expected = [0.01] * 3 + [0.001] * 7 + [1e-5] * 5 + [0.0] * 5
    np.testing.assert_array_equal(curve(row, 20, scale=0.1), np.array(expected, np.float32))


def test_dexp_is_that_of_configuration_170() -> None:
    """Stages and their rates as the authors' log has them: 250-fold, changed each quarter."""
    rates = curve(rate(schedule="dexp"), 1001)
    stages = (0.01, 0.0015874, 0.00025198, 0.00004)
    np.testing.assert_allclose(rates[:1000], np.repeat(stages, 250), rtol=2e-5)
    assert rates[1000] == rates[999]


def test_dexp_of_lengths_that_the_stages_do_not_divide() -> None:
    rates = curve(rate(total=10, schedule="dexp", num_stages=3, factor=100.0), 10)
    np.testing.assert_allclose(rates, [1e-2] * 4 + [1e-3] * 3 + [1e-4] * 3, rtol=1e-5)


def test_plateau_multiplies_its_own_rates() -> None:
    np.testing.assert_allclose(curve(rate(schedule="plateau"), 3, scale=0.1), [0.001] * 3)


def scales(accuracies: list[float], **changes: float) -> list[float]:
    options = {"factor": 0.1, "patience": 2, "threshold": 0.01} | changes
    plateau, found = Plateau.initial(), []
    for top1 in accuracies:
        plateau = plateau.update(top1, **options)
        found.append(float(plateau.scale))
    return found


def test_plateau_waits_then_divides_then_waits_again() -> None:
    seen = [0.2, 0.3, 0.3, 0.29, 0.3, 0.3, 0.4, 0.3, 0.3]
    assert scales(seen) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_plateau_counts_only_gains_above_the_threshold_over_the_best() -> None:
    assert scales([0.3, 0.305, 0.309]) == pytest.approx([1, 1, 0.1])
    assert scales([0.3, 0.305, 0.32, 0.2]) == pytest.approx([1, 1, 1, 1])
    assert scales([0.0, 0.0], patience=1, factor=0.5) == pytest.approx([1, 0.5])


def test_plateau_keeps_its_types() -> None:
    """Otherwise the train step would be given types that it was not compiled for."""
    before, after = (
        Plateau.initial(),
        Plateau.initial().update(0.5, factor=0.1, patience=1, threshold=0),
    )
    assert jax.tree.map(jnp.result_type, before) == jax.tree.map(jnp.result_type, after)


def test_a_long_run_does_not_overflow() -> None:
    """Step times number of stages is beyond int32."""
    row = rate(total=2**31 - 1, schedule="dexp")
    last = row.at(jnp.int32(2**31 - 2), jnp.float32(1))
    assert float(last) == pytest.approx(0.00004, rel=1e-5)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("Conv/conv1/kernel", "first"),
        ("Conv/conv2/kernel", "weights"),
        ("Dense/fc8/kernel", "weights"),
        ("Conv/conv1/bias", "biases"),
        ("BatchNorm/odd_name/bias", "norms"),
        ("Other/x/scale", None),
    ],
)
def test_the_first_matching_row_applies(path: str, row: str | None) -> None:
    patterns = {
        "first": "conv1/kernel",
        "norms": "Norm/",
        "weights": "kernel",
        "late": "fc[678]/kernel",
        "biases": "bias",
    }
    assert row_of(patterns, path) == row
