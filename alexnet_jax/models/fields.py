"""Fields of records that a config can set: documentation and bounds stand at the field."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from alexnet_jax.schema import Key


def option(
    kind: type,
    doc: str,
    low: float = -math.inf,
    high: float = math.inf,
    choices: Iterable[Any] = (),
) -> Callable[..., Any]:
    """Returns a `dataclasses.field` that carries its config key: `size: int = _SIZE(default=5)`.

    Args:
      kind: type of the value.
      doc: meaning and unit, one sentence.
      low: least value.
      high: largest value.
      choices: the allowed values, if only some are.
    """
    key = Key(None, kind, doc, choices=tuple(choices), low=low, high=high)
    return functools.partial(dataclasses.field, metadata={"key": key})


def options_of(record: Any) -> dict[str, Key]:
    """Returns the config keys of a record's class or instance, by field name."""
    fields = dataclasses.fields(record)
    return {field.name: field.metadata["key"] for field in fields if "key" in field.metadata}
