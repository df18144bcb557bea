"""Models against results of PyTorch in float64 (tests/peers/make_golden.py).

A model without golden values is compared with PyTorch in tests/parity only.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from cases import make_case, ours, projections, small_size

from alexnet_jax.models.variants import VARIANTS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
TOLERANCE = 1e-4


def test_golden_values_are_of_known_models() -> None:
    assert GOLDEN.keys() <= VARIANTS.keys()
    assert len(GOLDEN) >= 18


# Two towers with local response norm, and locally connected layers; other norms are tested alone.
FAST = {"digits", "cifar_13"}


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in GOLDEN],
)
def test_logits_and_gradients_in_float32(name: str) -> None:
    expected = GOLDEN[name]
    seed = expected["seed"]
    logits, gradients = ours(make_case(name, seed, "float32", input_size=small_size(name)))
    peers = np.array(expected["logits"])
    assert np.linalg.norm(logits - peers) <= TOLERANCE * np.linalg.norm(peers)
    found = {
        f"{layer}/{role}": array
        for layer, roles in gradients.items()
        for role, array in roles.items()
    }
    assert found.keys() == expected["gradients"].keys()
    for path, gradient in found.items():
        golden = expected["gradients"][path]
        difference = projections(gradient, seed) - golden["projections"]
        assert np.sqrt(np.mean(difference**2)) <= TOLERANCE * golden["norm"], path
        assert np.linalg.norm(gradient) == pytest.approx(golden["norm"], rel=TOLERANCE), path
