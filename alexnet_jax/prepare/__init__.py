"""Writing prepared datasets. Only the job `prepare` imports the modules of this package."""

from alexnet_jax.data.source import SOURCES

# Inputs that are not sources: the module of each, with a function `open_inputs(options) -> Inputs`.
LISTINGS = {
    "list": "alexnet_jax.prepare.lists",
    "pattern": "alexnet_jax.prepare.name_pattern",
    "ilsvrc": "alexnet_jax.prepare.ilsvrc",
}
# Everything that can be prepared.
INPUTS = SOURCES | LISTINGS
