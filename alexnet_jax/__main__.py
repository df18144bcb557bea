"""Makes `python -m alexnet_jax` the program."""

from alexnet_jax.main import start

start()
