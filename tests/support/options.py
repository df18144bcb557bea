"""Options of library functions at the defaults of the config, for tests that need few of them."""

import dataclasses
from pathlib import Path
from typing import Any

from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.data.source import DataOptions


def data_options(source: str, root: Path | None = None, **changes: Any) -> DataOptions:
    """Returns the options of a dataset, at the defaults of the config apart from the changes."""
    keys = [field.name for field in dataclasses.fields(DataOptions)]
    defaults = {name: SCHEMA["data"][name].default for name in keys}
    given = {"source": source, "root": None if root is None else str(root)}
    return DataOptions(**defaults | given | changes)
