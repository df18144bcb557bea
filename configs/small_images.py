"""Your own small images (28 to 40 pixels), with the models made for CIFAR-10 and for digits.

    python -m alexnet_jax.main --config=configs/small_images.py --config.data.root=DIR
    python -m alexnet_jax.main --config=configs/small_images.py:cifar_11 --config.data.root=DIR

DIR contains a folder per class, or train/ and val/ with a folder per class. The argument is a model
of RECIPES; all but `digits` take color and grayscale images alike. Where a mirrored image means
something else, as with letters, add --config.augment.random_flip=False.

With 270 training images of each of ten classes, in 3 to 6 minutes on two shared CPU cores: 49 %
top-1 accuracy on CIFAR-10 (cifar_26, re-encoded as JPEG), 96 % on digits (cifar_18, 10 epochs).
"""

from ml_collections import ConfigDict

# Model: data.image_size, learning rates of weights and biases, weight decay and what it applies to.
# As in cuda-convnet's layer-params files, but for the decay of the last layers, which is stronger
# there in all CIFAR models but cifar_13.
RECIPES = {
    "cifar_26": (40, 0.001, 0.002, 0.004, "kernel"),
    "cifar_19": (40, 0.001, 0.002, 0.004, "kernel"),
    "cifar_18": (40, 0.001, 0.002, 0.004, "kernel"),
    "cifar_13": (32, 0.001, 0.002, 0.004, "(LocallyConnected|Dense)/.*kernel"),
    "cifar_11": (32, 0.001, 0.002, 0.004, "(LocallyConnected|Dense)/.*kernel"),
    "digits": (28, 0.02, 0.02, 0.0005, "kernel"),
}


def get_config(model: str = "cifar_26") -> ConfigDict:
    if model not in RECIPES:
        raise ValueError(f"no recipe for {model!r}: choose one of {', '.join(RECIPES)}")
    image_size, weights, biases, decay, decay_pattern = RECIPES[model]
    fall = {"schedule": "dexp", "factor": 100.0, "num_stages": 3}
    config = ConfigDict()
    config.name = f"small_images_{model}"
    config.model = {"name": model}
    config.data = {"source": "folder", "eval_split": "val", "image_size": image_size}
    config.data.channels = 1 if model == "digits" else 3
    config.train = {"batch_size": 32, "duration": "30 epochs", "log_every": "20 steps"}
    config.checkpoint = {"every": "5 epochs"}
    config.optimizer = {"weight_decay": decay, "decay_pattern": decay_pattern}
    config.optimizer.rates = {
        "weights": {**fall, "rate": weights},
        "biases": {**fall, "rate": biases},
    }
    return config
