"""Which keys of a run's config may differ when the run is resumed."""

import json
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
    trees = [schema.flatten(_plain(tree)) for tree in (old, new)]
    known = schema.flatten(_plain(schema.defaults(SCHEMA)))
    changed = {}
    for path in sorted(trees[0].keys() | trees[1].keys()):
        key = schema.find(SCHEMA, path)
        default = known.get(path, _plain(key.default) if key else None)
        before, after = (tree.get(path, default) for tree in trees)
        if before != after and not _MUTABLE.fullmatch(path):
            changed[path] = (before, after)
    if "dexp" not in (row["schedule"] for row in new["optimizer"]["rates"].values()):
        changed.pop("train.duration", None)
    return changed


def _plain(value: Any) -> Any:
    """Returns a value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))
