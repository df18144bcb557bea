"""Text of the console."""

import pytest

from alexnet_jax.runtime.console import counted


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 process"), (2, "2 processes"), (1000, "1,000 processes")]
)
def test_a_number_has_the_noun_that_fits(count: int, text: str) -> None:
    assert counted(count, "process", "processes") == text
