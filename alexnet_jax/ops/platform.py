"""The one place where the array functions ask what they run on."""

import jax


def on_cpu() -> bool:
    """Tells whether arrays go to the CPU unless placed elsewhere; read while tracing.

    XLA's CPU backend wants some operations spelled otherwise than GPUs and TPUs do. Both
    spellings compute the same, so a program staged for another device is only slower.
    """
    return jax.default_backend() == "cpu"
