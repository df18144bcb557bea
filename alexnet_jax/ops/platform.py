"""The only place where the array functions ask which backend they run on."""

import jax


def on_cpu() -> bool:
    """Returns whether the default backend is the CPU; read while tracing.

    XLA's CPU backend needs other formulations of some operations than GPUs and TPUs. Both compute
    the same, so a program compiled for another device than the default is only slower.
    """
    return jax.default_backend() == "cpu"
