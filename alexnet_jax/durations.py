"""Durations with their unit: '90 epochs', '5000 steps', '1.2e6 examples'."""

import math
import re

UNITS = ("steps", "epochs", "examples")
_PATTERN = re.compile(r"\s*([0-9.]+(?:[eE][+]?[0-9]+)?)\s*(step|epoch|example)s?\s*")


def parse(text: str) -> tuple[float, str]:
    """Returns (amount, unit) of a duration.

    Raises:
      ValueError: the text is not a positive number and one of the units.
    """
    match = _PATTERN.fullmatch(text)
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    if not match or not 0 < amount < math.inf:
        raise ValueError(
            f"{text!r} is not a duration: write a positive number and one unit of "
            f"{', '.join(UNITS)}, as in '90 epochs'."
        )
    return amount, f"{match[2]}s"


def to_steps(text: str, batch_size: int, num_examples: int) -> int:
    """Returns a duration as a number of steps, at least 1, rounded to the nearest.

    Args:
      text: the duration.
      batch_size: examples a step, over all devices.
      num_examples: examples an epoch.
    """
    amount, unit = parse(text)
    steps_per_unit = {
        "steps": 1.0,
        "epochs": num_examples / batch_size,
        "examples": 1.0 / batch_size,
    }[unit]
    return max(1, round(amount * steps_per_unit))
