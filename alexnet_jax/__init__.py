"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX and Flax.

The public names are imported when they are first used, so that `import alexnet_jax` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "create_model": "alexnet_jax.models",
    "list_models": "alexnet_jax.models",
    "load": "alexnet_jax.trained_model",
    "local_response_norm": "alexnet_jax.ops",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'alexnet_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
