"""Options of library functions at the defaults of the config, for tests that need few of them."""

import dataclasses
from pathlib import Path
from typing import Any

from alexnet_jax.config.defaults import DATA
from alexnet_jax.data.source import DataOptions


def data_options(source: str, root: Path | None = None, **changes: Any) -> DataOptions:
    """Returns the options of a dataset, at the defaults of the config apart from the changes."""
    defaults = {field.name: DATA[field.name].default for field in dataclasses.fields(DataOptions)}
    given = {"source": source, "root": None if root is None else str(root)}
    return DataOptions(**defaults | given | changes)
