"""A weight file small enough for tests."""

from pathlib import Path

import jax
import numpy as np

from alexnet_jax import weights
from alexnet_jax.models import create_model
from alexnet_jax.weights import ModelFile

WIDTHS = {"conv1": 8, "conv2": 12, "conv3": 16, "conv4": 8, "conv5": 8, "fc6": 24, "fc7": 16}


def write_torchvision(path: Path) -> None:
    """Writes a narrow torchvision model for ImageNet under torchvision's names, as safetensors."""
    layers = {name: {"features": width} for name, width in WIDTHS.items()}
    model = create_model("torchvision", layers=layers)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 224, 224, 3)))
    config = {f"model.layers.{name}.features": width for name, width in WIDTHS.items()}
    config |= {"model.name": "torchvision", "model.num_classes": 1000, "data.image_size": 256}
    config |= {"data.resize": "torchvision", "augment.mean": "given"}
    config |= {"augment.channel_mean": (123.675, 116.28, 103.53)}
    config |= {"augment.channel_std": (58.395, 57.12, 57.375)}
    model_file = ModelFile(config, jax.device_get(variables["params"]))
    weights.write(path, "safetensors", model_file)
