"""AlexNet on ImageNet, trained as the authors' code did (configuration 145, ILSVRC-2012).

    python -m alexnet_jax.main --config=configs/paper.py            as the authors coded it
    python -m alexnet_jax.main --config=configs/paper.py:text       as the paper's text describes it
    python -m alexnet_jax.main --config=configs/paper.py:smoke      the same code path in a minute

For a folder with train/ and val/ add --config.data.source=folder --config.data.root=DIR.
Two GTX 580 took 5 to 6 days (2012). Expected top-1 error, by the authors' records: 40.7 % with ten
crops (top-5 18.2 %), about 42.3 % with one (19.6 %). Not yet measured with this code.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = f"paper_{arg}" if arg else "paper"
    config.model = {"name": "paper_text" if arg == "text" else "paper"}
    config.train = {"batch_size": 128, "duration": "91 epochs"}
    config.optimizer = {"rates": as_text() if arg == "text" else as_coded()}
    # As coded, groups of 32 images share crop and flip (convdata_jpeg.py): four draws per batch.
    coded = {"crop_group_size": 32, "color_noise": "code", "color_noise_until": "67 epochs"}
    config.augment = {"color_noise": "text"} if arg == "text" else coded
    if arg == "smoke":  # handwritten digits stand in for ImageNet
        config.train = {"batch_size": 8, "duration": "4 steps", "log_every": "1 step"}
        config.data = {"source": "digits", "eval_split": "val[:16]"}
        config.augment.update({"mean": "channel", "mean_examples": 64, "crop_group_size": 2})
    elif arg not in ("", "text"):
        raise ValueError(f"unknown argument {arg!r}: text or smoke")
    return config


def as_coded() -> dict:
    """Rates of layer-params-145.cfg: weights dropped by hand; conv1 slowed, then frozen."""
    drops, frozen = ("25 epochs", "51 epochs", "79 epochs"), "72 epochs"
    weights = {"schedule": "step", "boundaries": drops, "step_values": (1e-3, 1e-4, 1e-5)}
    conv1 = {
        "pattern": "conv1/kernel",
        "schedule": "step",
        "boundaries": (*drops[:2], "67 epochs", frozen),
        "step_values": (1e-3, 1e-4, 1e-5, 0.0),
    }
    conv1_bias = {"pattern": "conv1/bias", "schedule": "step", "rate": 0.02}
    conv1_bias |= {"boundaries": (frozen,), "step_values": (0.0,)}
    return {"weights": weights, "conv1": conv1, "conv1_bias": conv1_bias}


def as_text() -> dict:
    """Equal rates for all layers, divided by 10 three times (section 5)."""
    drops = ("25 epochs", "51 epochs", "79 epochs")
    row = {"schedule": "step", "boundaries": drops, "step_values": (1e-3, 1e-4, 1e-5)}
    return {"weights": row, "biases": {**row, "rate": 0.01}}
