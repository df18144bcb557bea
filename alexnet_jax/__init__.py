"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX and Flax.

`load` and `create_model` are imported when they are first used, so that `import alexnet_jax` costs
nothing.
"""

import importlib
from typing import Any

_HOMES = {
    "create_model": "alexnet_jax.models",
    "load": "alexnet_jax.trained_model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alexnet_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
