"""What can be changed about any model: the keys of the config's `model` section."""

from typing import Any

from alexnet_jax.models.fields import options_of
from alexnet_jax.models.initializers import INITIALIZERS, Initializer
from alexnet_jax.models.layers import ACTIVATIONS, kinds
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.schema import Key, Schema, Table

LAYER_FIELDS = {
    name: key for record in (*kinds(), Initializer) for name, key in options_of(record).items()
}


def _override(kind: type, doc: str, **options: Any) -> Key:
    """Returns the key of a change to the model; None leaves it as it is."""
    return Key(None, kind, doc, optional=True, **options)


_NAMES: Any = VARIANTS.keys()

MODEL_OPTIONS: Schema = {
    "name": Key("paper", str, "Name of a model in models/variants.py.", choices=_NAMES),
    "num_classes": Key(
        None,
        int,
        "Number of outputs; None: the number of classes of the data.",
        optional=True,
        low=2,
        high=2**20,
    ),
    "dtype": Key(
        None,
        str,
        "Type to compute in; None: that of the parameters, float32.",
        optional=True,
        choices=("bfloat16",),
    ),
    "initializer": _override(
        str, "How weights and biases are initialized.", choices=tuple(INITIALIZERS)
    ),
    "layers": Table(LAYER_FIELDS, {}, "Fields of single layers, by the layer's name."),
    "remove_layer": _override(str, "Name of a convolution to remove."),
    "lrn": _override(
        str,
        "Response norms: none, or all: one after each convolution.",
        choices=("none", "all"),
    ),
    "pooling": _override(
        str,
        "Pooling windows of 2 x 2 that do not overlap (configuration 147).",
        choices=("non_overlapping",),
    ),
    "activation": _override(
        str,
        "Activation instead of ReLU; abs_tanh also pools by averages.",
        choices=tuple(ACTIVATIONS),
    ),
    "dropout": _override(float, "Rate of every dropout layer; 0: no dropout.", low=0, high=0.99),
    "fully_convolutional": _override(
        bool, "Whether dense layers are applied at each position of larger images."
    ),
    "input_size": _override(
        int, "Height and width of the model's input, in pixels.", low=1, high=2**13
    ),
}
