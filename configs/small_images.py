"""Your own small images, color or grayscale, with the models that cuda-convnet made for CIFAR-10.

    python -m alexnet_jax.main --config=configs/small_images.py --config.data.root=DIR
    python -m alexnet_jax.main --config=configs/small_images.py:cifar_11 --config.data.root=DIR

DIR has a folder per class, or train/ and val/ with a folder per class; the argument is a model.
"""

from ml_collections import ConfigDict

# Weight decay of cuda-convnet's layer-params files, with the layers it applies to. All its CIFAR-10
# models train with rates of 0.001 (weights) and 0.002 (biases) on pixels of 0..255.
DECAY = {
    "cifar_26": (0.004, "kernel"),
    "cifar_19": (0.004, "kernel"),
    "cifar_18": (0.004, "kernel"),
    "cifar_13": (0.004, "LocallyConnected/.*kernel|Dense/.*kernel"),
    "cifar_11": (0.004, "LocallyConnected/.*kernel|Dense/.*kernel"),
}


def get_config(model: str = "cifar_26") -> ConfigDict:
    if model not in DECAY:
        raise ValueError(f"no recipe for {model!r}: choose one of {', '.join(DECAY)}")
    decay, pattern = DECAY[model]
    local = model in ("cifar_13", "cifar_11")  # these take crops of 24 pixels
    fall = {"schedule": "dexp", "factor": 100.0, "num_stages": 3}
    config = ConfigDict()
    config.name = f"small_images_{model}"
    config.model = {"name": model}
    config.data = {"source": "folder", "eval_split": "val", "image_size": 32 if local else 40}
    config.train = {"batch_size": 32, "duration": "30 epochs", "log_every": "20 steps"}
    config.checkpoint = {"every": "5 epochs"}
    config.optimizer = {
        "weight_decay": decay,
        "decay_pattern": pattern,
        "rates": {"weights": {**fall, "rate": 0.001}, "biases": {**fall, "rate": 0.002}},
    }
    return config
