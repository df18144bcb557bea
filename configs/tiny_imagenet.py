"""The paper's net on Tiny-ImageNet, pictures of 64 pixels enlarged to 256.

    python -m alexnet_jax.main --config=configs/tiny_imagenet.py --config.data.root=DIR

DIR holds train/ and val/ with a folder a class. Hours and accuracy: docs/tiny_imagenet.md.
The rate falls 250-fold over four levels, as in the authors' configuration 170.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    del arg
    config = ConfigDict()
    config.name = "tiny_imagenet"
    config.model = {"name": "paper"}
    config.data = {"source": "folder", "root": "tiny-imagenet-200", "eval_split": "val"}
    config.train = {"batch_size": 64, "duration": "12 epochs", "log_every": "20 steps"}
    config.checkpoint = {"every": "0.5 epochs"}
    config.optimizer = {"rates": {"weights": {"schedule": "dexp"}, "biases": {"schedule": "dexp"}}}
    return config
