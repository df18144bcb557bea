"""What can be changed about any model: the keys of the config's `model` section."""

from alexnet_jax.schema import Key, Schema, Table

LAYER_FIELDS = {
    "features": Key(None, int, "Maps or outputs it makes.", optional=True, low=1),
    "size": Key(
        None, int, "Side of the kernel, or width of a norm's window.", optional=True, low=1
    ),
    "stride": Key(None, int, "Pixels from a window to the next.", optional=True, low=1),
    "padding": Key(None, int, "Zeros around the maps, in pixels.", optional=True, low=0),
    "ceil_mode": Key(
        None, bool, "Whether a last window may reach over the right and bottom edge.", optional=True
    ),
    "groups": Key(None, int, "Parts that see their own maps alone.", optional=True, low=1),
    "window": Key(None, int, "Side of a pool's window, in pixels.", optional=True, low=1),
    "kind": Key(None, str, "Of a pool.", optional=True, choices=("max", "average")),
    "output": Key(None, int, "Cells a side of an adaptive pool.", optional=True, low=1),
    "k": Key(None, float, "The constant of a response norm.", optional=True, low=0),
    "alpha": Key(None, float, "A response norm's factor on the plain sum.", optional=True, low=0),
    "beta": Key(None, float, "A response norm's power.", optional=True, low=0),
    "momentum": Key(
        None, float, "Share of batch norm's running values kept.", optional=True, low=0, high=1
    ),
    "epsilon": Key(None, float, "Added to batch norm's variance.", optional=True, low=0),
    "rate": Key(None, float, "Share that a dropout drops.", optional=True, low=0, high=0.99),
    "rescale": Key(
        None,
        str,
        "Whether a dropout's factor is applied at test time, as the paper, or in training.",
        optional=True,
        choices=("test", "train"),
    ),
    "std": Key(None, float, "Standard deviation of the first weights.", optional=True, low=0),
    "bias": Key(None, float, "Value of the first biases.", optional=True),
}

MODEL_OPTIONS: Schema = {
    "name": Key("paper", str, "A row of models/variants.py."),
    "num_classes": Key(
        None, int, "Outputs; None: as many as the data have classes.", optional=True, low=2
    ),
    "dtype": Key(
        None,
        str,
        "Type the net computes in; None: that of its parameters, float32.",
        optional=True,
        choices=("bfloat16",),
    ),
    # what follows changes the row; None leaves it as it is
    "init": Key(
        None,
        str,
        "How weights and biases start.",
        optional=True,
        choices=(
            "source",
            "text",
            "one_tower",
            "caffe",
            "caffenet",
            "torch",
            "kaiming",
            "xavier",
        ),
    ),
    "layers": Table(LAYER_FIELDS, {}, "Fields of single layers, by the layer's name."),
    "without": Key(None, str, "The name of a convolution to take out.", optional=True),
    "response_norm": Key(
        None,
        str,
        "No response norm, or one after each convolution.",
        optional=True,
        choices=("none", "all"),
    ),
    "pooling": Key(
        None,
        str,
        "Pools of 2 x 2 that do not overlap (configuration 147).",
        optional=True,
        choices=("non_overlapping",),
    ),
    "activation": Key(
        None,
        str,
        "In place of ReLU; abs_tanh pools by averages.",
        optional=True,
        choices=("relu", "tanh", "sigmoid", "abs_tanh"),
    ),
    "dropout": Key(None, float, "Rate of every dropout; 0: none.", optional=True, low=0, high=0.99),
    "fully_convolutional": Key(
        None, bool, "Dense layers run at every place of larger pictures.", optional=True
    ),
    "input_size": Key(None, int, "Pixels of the net's input, a side.", optional=True, low=1),
}
