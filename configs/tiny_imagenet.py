"""The paper's model on Tiny-ImageNet, images of 64 pixels enlarged to 256.

    python -m alexnet_jax.main --config=configs/tiny_imagenet.py --config.data.root=DIR

DIR contains train/ and val/ with a folder per class.
Twenty classes on two CPU cores: 45.8 % top-1 accuracy after 1 h 41 min (docs/tiny_imagenet.md).
Small batches and four stages of the rate, as in the authors' configuration 170: a short run.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "tiny_imagenet"
    config.model = {"name": "paper"}
    config.data = {"source": "folder", "root": "tiny-imagenet-200", "eval_split": "val"}
    config.train = {"batch_size": 32, "duration": "7 epochs", "evaluate_every": "0.5 epochs"}
    config.checkpoint = {"every": "0.25 epochs", "keep": 1}
    rate = {"schedule": "dexp", "factor": 30.0}
    config.optimizer = {"rates": {"weights": rate, "biases": rate}}
    return config
