"""How much of an image reaches the logits of an untrained model, for each initializer.

    python -m benchmarks.init_signal [--root=DIR] [--seeds=3]

It shows why the paper's literal settings train slowly: biases of 1 send the same constant through
every layer, and with weights of std 0.01 the signal of the image vanishes next to it. For each
setting the table gives, after each layer and its ReLU, the root mean square of the activations and
the share of it that differs from image to image; the last column is the standard deviation of a
logit over the images: the mean over the seeds, with the smallest and the largest.

DIR is any folder of images; the default is twelve parts of the three photographs that scikit-learn
and matplotlib include.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

import benchmarks
from alexnet_jax.data.images import decode, resize_and_crop
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet, create_model

_ROOT = flags.DEFINE_string("root", None, "Folder of images; default: the photographs.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Initializations of each.", lower_bound=1)
_COUNT = flags.DEFINE_integer("count", 12, "Images to read from the folder.", lower_bound=2)

SCALED = 1 / 58  # about one over the standard deviation of a pixel
COLUMNS = ("pool1", "pool2", "conv3", "conv4", "pool5", "fc6", "fc7", "fc8")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table: a model, overrides, and the factor on pixels of 0..255."""

    name: str
    model: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scale: float = 1.0


INITIALIZERS = ("caffe", "caffenet", "torch", "kaiming", "xavier")
ALPHA = {name: {"alpha": 1e-4} for name in ("norm1", "norm2")}
OFF = {"within_channel_norm2": {"alpha": 0.0}}
SETTINGS = (
    Setting("as coded (paper)", "paper"),
    Setting("as coded, pixels / 58", "paper", scale=SCALED),
    Setting("the text (paper_text)", "paper_text"),
    Setting("the text, pixels / 58", "paper_text", scale=SCALED),
    # one difference at a time
    Setting("as coded, std 0.01 in conv3-5", "paper", {"initializer": "text"}),
    Setting("as coded, alpha on the plain sum", "paper", {"layers": ALPHA}),
    Setting("as coded, no within-channel norm", "paper", {"layers": OFF}),
    Setting("the text, std 0.03 in conv3-5", "paper_text", {"initializer": "source"}),
    # the initializers on the model as coded
    *(Setting(f"initializer {name}", "paper", {"initializer": name}) for name in INITIALIZERS),
    *(
        Setting(f"initializer {name}, pixels / 58", "paper", {"initializer": name}, SCALED)
        for name in INITIALIZERS
    ),
    # other models as their authors have them
    Setting("caffe", "caffe"),
    Setting("caffenet", "caffenet"),
    Setting("one_tower", "one_tower"),
    Setting("torchvision, pixels / 58", "torchvision", scale=SCALED),
)


def photographs_included() -> list[np.ndarray]:
    """Returns twelve parts of three photographs, uint8[height, width, 3] each."""
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    portrait = decode((folder / "grace_hopper.jpg").read_bytes(), channels=3)
    whole = [*load_sample_images().images, portrait]
    parts = []
    for image in whole:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        parts += [
            image[top : top + rows, left : left + columns]
            for top in (0, rows)
            for left in (0, columns)
        ]
    return parts


def load(root: str | None, count: int) -> np.ndarray:
    """Returns uint8[count, 256, 256, 3]: the photographs, or files evenly spread over a folder."""
    if root is None:
        photographs = photographs_included()
    else:
        files = sorted(
            path
            for path in Path(root).rglob("*")
            if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        if not files:
            raise InputError(
                f"{root}: there is no JPEG or PNG file in this folder or its subfolders."
            )
        chosen = [files[i * len(files) // count] for i in range(min(count, len(files)))]
        photographs = [decode(path.read_bytes(), channels=3) for path in chosen]
    return np.stack([resize_and_crop(image, 256) for image in photographs])


def signal(model: AlexNet, variables: Any, x: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns for each column the rms of all activations, and of what differs between images."""
    logits, state = model.apply(variables, x, mutable="intermediates")
    outputs = {"fc8": logits}
    for name in COLUMNS[:-1]:
        outputs[name] = jax.nn.relu(state["intermediates"][f"{name}_output"][0])
    return {
        name: (jnp.sqrt(jnp.mean(y**2)), jnp.sqrt(jnp.mean(jnp.var(y, axis=0))))
        for name, y in outputs.items()
    }


def measure(setting: Setting, images: np.ndarray, seeds: int) -> dict[str, Any]:
    """Returns a row: {column: [rms, share]} of the first seed, and the logits' spread by seed."""
    model = create_model(setting.model, **setting.overrides)
    size = model.spec.input_size
    edge = (images.shape[1] - size) // 2
    center = images[:, edge : edge + size, edge : edge + size].astype(np.float32)
    x = jnp.asarray((center - images.mean((0, 1, 2))) * setting.scale)

    @jax.jit
    def run(key: jax.Array, x: jax.Array) -> Any:
        return signal(model, model.init(key, x[:1]), x)

    rows = [jax.device_get(run(jax.random.key(seed), x)) for seed in range(seeds)]
    layers = {
        name: [
            float(np.mean([row[name][0] for row in rows])),
            float(np.mean([row[name][1] / row[name][0] for row in rows])),
        ]
        for name in COLUMNS
    }
    return {"layers": layers, "logit_std": [float(row["fc8"][1]) for row in rows]}


def table_of(rows: Mapping[str, dict[str, Any]]) -> Table:
    """Returns the table for a terminal."""
    table = Table(
        title="rms of activations / share that differs between images", title_justify="left"
    )
    table.add_column("setting")
    for name in (*COLUMNS[:-1], "logits", "std of a logit"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        cells = [f"{rms:.3g} / {share:.2g}" for rms, share in row["layers"].values()]
        stds = row["logit_std"]
        spread = f"{np.mean(stds):.2g} ({min(stds):.2g} to {max(stds):.2g})"
        table.add_row(name, *cells, spread)
    return table


def main(argv: list[str]) -> None:
    """Prints the table, and the same as one line of JSON."""
    del argv
    images = load(_ROOT.value, _COUNT.value)
    console = Console(width=200)
    rows = {}
    for setting in SETTINGS:
        with console.status(setting.name):
            rows[setting.name] = measure(setting, images, _SEEDS.value)
    console.print(table_of(rows))
    print(json.dumps({"images": len(images), "seeds": _SEEDS.value, "settings": rows}))


if __name__ == "__main__":
    benchmarks.run(main)
