"""Which keys of a run's config may differ when the run is resumed."""

import re
from collections.abc import Mapping
from typing import Any

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA

_MUTABLE = re.compile(
    r"job|compilation_cache|augment\.draw_first_batch|train\.stuck_after"
    r"|data\.(root|threads|processes|prefetch)"
    r"|(prepare|checkpoint|evaluation|parallel|estimate)\..*"
)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {path: (old value, new value)} of the keys that differ but must not.

    A key that one of the configs lacks is at its default. The duration may change where no learning
    rate depends on it.
    """
    merged = (schema.merge(SCHEMA, schema.flatten(dict(tree)))[0] for tree in (old, new))
    before, after = map(schema.flatten, merged)
    changed = {}
    for path in sorted(before | after):
        key = schema.find(SCHEMA, path)
        default = key and key.default  # of a row of rates that one of the configs lacks
        values = before.get(path, default), after.get(path, default)
        if values[0] != values[1] and not _MUTABLE.fullmatch(path):
            changed[path] = values
    if "dexp" not in (row["schedule"] for row in new["optimizer"]["rates"].values()):
        changed.pop("train.duration", None)
    return changed
