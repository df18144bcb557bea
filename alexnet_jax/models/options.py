"""What can be changed about any model: the keys of the config's `model` section."""

from alexnet_jax.models.fields import options_of
from alexnet_jax.models.initializers import INITIALIZERS, Initializer
from alexnet_jax.models.layers import ACTIVATIONS, MAX_INPUT_SIZE, kinds
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.schema import Schema, Table, choice, flag, integer, number, text

LAYER_FIELDS = {
    name: key for record in (*kinds(), Initializer) for name, key in options_of(record).items()
}

# After dtype come the changes to the model; None leaves it as it is.
MODEL_OPTIONS: Schema = {
    "name": choice("paper", "Name of a model in models/variants.py.", VARIANTS),
    "num_classes": integer(
        None, "Number of outputs; None: the number of classes of the data.", 2, 2**20
    ),
    "dtype": choice(
        None, "Type to compute in; None: that of the parameters, float32.", ("bfloat16",)
    ),
    "initializer": choice(None, "How weights and biases are initialized.", INITIALIZERS),
    "layers": Table(LAYER_FIELDS, {}),  # of single layers, by name
    "remove_layer": text(None, "Name of a convolution to remove."),
    "lrn": choice(
        None, "Response norms: none, or all: one after each convolution.", ("none", "all")
    ),
    "pooling": choice(
        None,
        "Pooling windows of 2 x 2 that do not overlap (configuration 147).",
        ("non_overlapping",),
    ),
    "activation": choice(
        None, "Activation instead of ReLU; abs_tanh also pools by averages.", ACTIVATIONS
    ),
    "dropout": number(None, "Rate of every dropout layer; 0: no dropout.", 0, 0.99),
    "fully_convolutional": flag(
        None, "Whether dense layers are applied at each position of larger images."
    ),
    "input_size": integer(
        None, "Height and width of the model's input, in pixels.", 1, MAX_INPUT_SIZE
    ),
}
