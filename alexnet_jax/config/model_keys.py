"""Takes over the config keys that belong to a trained model."""

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.command_line import Command, ordered_config
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError


def take_over(command: Command, own: Mapping[str, Any], keys: re.Pattern[str]) -> ConfigDict:
    """Returns a command's config with a model's values of some keys.

    Args:
      command: may set these keys, but only to the model's values.
      own: the full config tree of the model.
      keys: matches the keys.

    Raises:
      InputError: the command sets some of the keys to other values; all are listed.
    """
    given, theirs = (schema.flatten(tree) for tree in (command.config.to_dict(), dict(own)))
    differences = [
        f"  {key}: {theirs.get(key)!r} there, {given[key]!r} here"
        for key in sorted(command.given & given.keys())
        if keys.fullmatch(key) and given[key] != theirs.get(key)
    ]
    if differences:
        raise InputError(
            "The model has its own layers and preprocessing; leave these keys out:\n"
            + "\n".join(differences)
        )
    taken = {key: value for key, value in theirs.items() if keys.fullmatch(key)}
    kept = {key: value for key, value in given.items() if not keys.fullmatch(key)}
    tree, errors = schema.merge(SCHEMA, kept | taken)
    assert not errors, errors  # both are full trees
    return ordered_config(tree).lock()
