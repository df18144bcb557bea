"""The nets of the AlexNet family."""

from typing import Any

from alexnet_jax.models.alexnet import AlexNet, Towers
from alexnet_jax.models.layers import Network
from alexnet_jax.models.overrides import override
from alexnet_jax.models.variants import NETWORKS

__all__ = ["AlexNet", "Towers", "create_model", "create_network"]


def create_network(name: str, **overrides: Any) -> Network:
    """Returns a row of the family with overrides applied; see `create_model`."""
    return override(NETWORKS[name], **overrides)


def create_model(
    name: str, num_classes: int = 1000, dtype: str | None = None, **overrides: Any
) -> AlexNet:
    """Returns a net of the family.

    Args:
      name: a row of `variants.NETWORKS`.
      num_classes: outputs of the last layer.
      dtype: type to compute in, such as "bfloat16"; None: that of the parameters, float32.
      **overrides: of `overrides.OVERRIDES`, such as `init="kaiming"`, `without="conv4"`,
        `response_norm="none"`, `fully_convolutional=True`.

    Raises:
      KeyError: there is no such row.
      TypeError: there is no such override.
    """
    return AlexNet(create_network(name, **overrides), num_classes, dtype=dtype)
