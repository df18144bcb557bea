"""Fields of records that a config can set: documentation and bounds stand at the field."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from alexnet_jax.schema import Key


def option(key: Key) -> Callable[..., Any]:
    """Returns a `dataclasses.field` that carries its config key: `size: int = _SIZE(default=5)`."""
    return functools.partial(dataclasses.field, metadata={"key": key})


def options_of(record: Any) -> dict[str, Key]:
    """Returns the config keys of a record's class or instance, by field name."""
    fields = dataclasses.fields(record)
    return {field.name: field.metadata["key"] for field in fields if "key" in field.metadata}
