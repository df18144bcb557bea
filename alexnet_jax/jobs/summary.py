"""Job summary: the layer table of the config's net, as text and then as one line of JSON."""

import json

from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.models import create_model
from alexnet_jax.models.summary import as_json, as_table, layer_table

IMAGENET_CLASSES = 1000


def run(command: Command, console: Console) -> None:
    """Prints the table; needs no data. Without model.num_classes the net has ImageNet's 1000."""
    model = command.config.model
    num_classes = model.num_classes or IMAGENET_CLASSES
    spec = create_model(**{**model.to_dict(), "num_classes": num_classes}).spec
    rows = layer_table(spec, num_classes)
    side = spec.input_size
    title = f"{model.name}: {side} x {side} x {spec.channels}, {num_classes} classes"
    console.print(as_table(rows, title))
    heading = {"model": model.name, "input": [side, side, spec.channels]}
    print(json.dumps({**heading, **as_json(rows)}))
