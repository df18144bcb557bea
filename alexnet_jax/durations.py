"""Durations with their unit: '90 epochs', '5000 steps', '1.2e6 examples'."""

import re

MAX_AMOUNTS = {"steps": 2e9, "epochs": 1e6, "examples": 1e12}
MAX_STEPS = int(MAX_AMOUNTS["steps"])  # fits an int32
_NUMBER = r"(?:[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE]\+?[0-9]{1,3})?"
_PATTERN = re.compile(rf"\s*({_NUMBER})\s*(step|epoch|example)s?\s*")


def parse(text: str) -> tuple[float, str]:
    """Returns (amount, unit) of a duration.

    Raises:
      ValueError: the text is not a positive number with one of the units, or the number is too
        large.
    """
    match = _PATTERN.fullmatch(text)
    amount = float(match[1]) if match else 0.0
    if not match or not amount:
        raise ValueError(
            f"{text!r} is not a duration: write a positive number and one unit of "
            f"{', '.join(MAX_AMOUNTS)}, as in '90 epochs'."
        )
    unit = f"{match[2]}s"
    if amount > MAX_AMOUNTS[unit]:
        raise ValueError(f"{text!r} is too long: at most {MAX_AMOUNTS[unit]:g} {unit}.")
    return amount, unit


def to_steps(text: str, batch_size: int, num_examples: int) -> int:
    """Returns a duration as a number of steps, rounded, at least 1 and at most MAX_STEPS.

    Args:
      text: the duration.
      batch_size: examples per step, over all devices.
      num_examples: examples per epoch.
    """
    amount, unit = parse(text)
    num_steps = {"steps": 1.0, "epochs": num_examples / batch_size, "examples": 1.0 / batch_size}
    return min(max(1, round(amount * num_steps[unit])), MAX_STEPS)
