"""The nets of the AlexNet family."""

from alexnet_jax.models.alexnet import AlexNet, Towers, create_model

__all__ = ["AlexNet", "Towers", "create_model"]
