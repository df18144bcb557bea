"""Writing prepared datasets. Only the job `prepare` imports the modules of this package."""

from alexnet_jax.data.source import SOURCES

# Inputs that are not sources: the module of each, with a function `list_rows(options)` that returns
# {split: rows} and the class table, None where it is that of the user or follows from the labels.
LISTINGS = {
    "list": "alexnet_jax.prepare.lists",
    "pattern": "alexnet_jax.prepare.lists",
    "ilsvrc": "alexnet_jax.prepare.ilsvrc",
}
# Everything that can be prepared.
INPUTS = (*SOURCES, *LISTINGS)
