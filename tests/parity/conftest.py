"""Comparisons with other frameworks; they need the `parity` extra: `make parity`."""

import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the tests run in a process per core
