"""A trained model on your own classes: a run, its checkpoint or a weight file, fine-tuned.

    python -m alexnet_jax.main --config=configs/finetune.py --config.train.init_from=runs/source --config.data.root=DIR

The config takes an argument: configs/finetune.py:frozen trains the dense layers only, and
configs/finetune.py:full trains all layers at one rate. Model and preprocessing are those of
train.init_from, with a new output layer for the classes of DIR, which contains a folder per class,
or train/ and val/ with a folder per class. All rates follow that of the hidden layers' weights:
--config.optimizer.rates.weights.rate=0.0005
"""  # noqa: E501

from ml_collections import ConfigDict

RATE = 0.001  # of hidden layers; a tenth of what the paper's model is trained with from scratch
HEAD = "/fc(8|10)/"  # the output layers of all models


def get_config(layers: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = f"finetune_{layers}" if layers else "finetune"
    config.data = {"source": "folder", "eval_split": "val"}
    config.train = {"init_new_head": True, "batch_size": 32, "duration": "10 epochs"}
    config.train.log_every = "20 steps"
    fall = {"schedule": "dexp", "factor": 10.0, "num_stages": 3}
    config.optimizer = {"rates": {"weights": {**fall, "rate": RATE}}}
    rates = config.optimizer.rates
    rate = rates.weights.get_oneway_ref("rate")
    full = layers == "full"
    rates.head = {**fall, "pattern": HEAD, "rate": rate if full else 10 * rate}
    if layers == "frozen":
        rates.frozen = {"pattern": "^(?!Dense/)", "rate": 0.0}
    elif layers not in ("", "full"):
        raise ValueError(f"unknown argument {layers!r}: frozen or full")
    rates.biases_and_norms = {**fall, "pattern": "bias|Norm/", "rate": rate if full else 2 * rate}
    return config
