"""Which keys of a run's config may differ when the run is resumed."""

import json
from collections.abc import Mapping
from typing import Any

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA


def mutable_on_resume(path: str) -> bool:
    """Returns whether a run may be resumed with another value of this key."""
    key = schema.find(SCHEMA, path)
    return key is not None and key.mutable_on_resume


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {path: (old value, new value)} of the keys that differ but must not.

    A key that came with a later version was at its default.
    """
    known, current = (
        schema.flatten(json.loads(json.dumps(tree))) for tree in (schema.defaults(SCHEMA), new)
    )
    previous = {**known, **schema.flatten(old)}
    return {
        path: (previous.get(path), current.get(path))
        for path in sorted(previous.keys() | current.keys())
        if previous.get(path) != current.get(path) and not mutable_on_resume(path)
    }
