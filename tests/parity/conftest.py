"""Comparisons with other frameworks; they need the `parity` extra: `make parity`."""

import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)
