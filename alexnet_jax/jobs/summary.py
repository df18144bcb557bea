"""Job summary: the layer table of the config's model, as text and then as one line of JSON."""

import json

from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.models import create_model
from alexnet_jax.models.summary import as_json, as_table, layer_table

IMAGENET_CLASSES = 1000


def run(command: Command, console: Console) -> None:
    """Prints the table; needs no data.

    Without model.num_classes the model has ImageNet's 1000 classes.
    """
    options = command.config.model.to_dict()
    num_classes = options["num_classes"] or IMAGENET_CLASSES
    spec = create_model(**{**options, "num_classes": num_classes}).spec
    rows = layer_table(spec, num_classes)
    side = spec.input_size
    title = f"{options['name']}: {side} x {side} x {spec.channels}, {num_classes} classes"
    console.print(as_table(rows, title))
    heading = {"model": options["name"], "input": [side, side, spec.channels]}
    console.print(json.dumps({**heading, **as_json(rows)}))
