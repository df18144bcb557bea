"""Every key of a config: its default, type, bounds, unit and meaning. No default stands elsewhere.

A config file defines `get_config(arg)` and returns an ml_collections ConfigDict of the keys that
differ from these; `--config.a.b=c` overrides any of them. `command_line.py` merges the three and
`checks.py` finds values that contradict each other. Choices are the names of the registries.
"""

import pkgutil
import re
from pathlib import Path

from alexnet_jax import durations
from alexnet_jax.data.source import SOURCES
from alexnet_jax.evaluation.step import VIEWS
from alexnet_jax.models.options import MODEL_OPTIONS
from alexnet_jax.parallel.estimate import DEVICES
from alexnet_jax.parallel.mesh import STRATEGIES
from alexnet_jax.prepare import INPUTS
from alexnet_jax.schema import (
    Key,
    Schema,
    Table,
    choice,
    flag,
    integer,
    many,
    mutable_keys,
    number,
    text,
)

# A job is a module of the package `jobs`, which is not imported here: it imports the config.
JOBS = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parents[1] / "jobs")])]
MAX_RATE, MAX_PIXELS, MAX_WORKERS = 1e3, 2**14, 2**10
_SLOW_PATTERN = re.compile(r"\([^()]*[*+}][^()]*\)[*+{]|(\)[*+{].*){2}")  # may take for ever


def pattern_error(value: str) -> str:
    """Returns a sentence on what is wrong with a regular expression, or ''."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{value[:99]!r} is not a valid regular expression: {error}."
    nested = _SLOW_PATTERN.search(value)
    return f"{value!r} repeats a group of repetitions: matching may not end." if nested else ""


def bucket_error(value: str) -> str:
    """Returns the error of a path that is a URL, or ''."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        return f"{value!r} is a URL: mount the bucket as a folder and give the folder's path."
    return ""


def _duration(default: str | None, doc: str) -> Key:
    return text(default, doc, durations.error_in)


def _pattern(default: str, doc: str) -> Key:
    return text(default, doc, pattern_error)


def _path(doc: str) -> Key:
    return text(None, doc, bucket_error)


RATE_ROW = {
    "pattern": _pattern("", "Regular expression of parameter paths such as Conv/conv1/kernel."),
    "schedule": choice(
        "constant", "How the rate changes.", ("constant", "step", "dexp", "plateau")
    ),
    "rate": number(0.01, "Learning rate at the start; 0 freezes.", high=MAX_RATE),
    "boundaries": many(
        text("", "", durations.error_in), "step: durations after which the rate changes."
    ),
    "step_values": many(
        number(0.0, "", high=MAX_RATE), "step: the rate from each boundary on; 0 freezes."
    ),
    "factor": number(250.0, "dexp: the first rate divided by the last.", low=1, high=1e12),
    "num_stages": integer(4, "dexp: number of equally long stages.", low=2, high=10),
}

SCHEMA: Schema = {
    "name": text("alexnet", "Name of the run; the workdir defaults to runs/NAME."),
    **mutable_keys({"job": choice("train", "What to do.", JOBS)}),
    "seed": integer(0, "Fixes weights, order, augmentation and dropout.", high=2**31 - 1),
    "model": MODEL_OPTIONS,
    "data": {
        "source": choice("tfds", "Where images come from.", SOURCES),
        "name": text("imagenet2012", "tfds: the dataset's name."),
        "train_split": text("train", "Split to train on, or a part of it: 'train[:90%]'."),
        "eval_split": text("validation", "Split to evaluate on; a folder takes 'val' for it."),
        "holdout": number(
            0.1, "folder: share of each class held out if the root has only classes.", high=0.9
        ),
        "allow_empty_classes": flag(
            False, "Train although a class of the training split has no images."
        ),
        "image_size": integer(
            256, "Pixels: shorter side and center crop on the host.", low=1, high=MAX_PIXELS
        ),
        "channels": Key(3, int, "3: RGB; 1: grayscale.", choices=(1, 3)),
        **mutable_keys(
            {
                "root": _path(
                    "folder: contains train/ and val/, or only class folders; parquet: contains "
                    "train-*.parquet; prepared: what job "
                    "prepare wrote; tfds: its data_dir, None for ~/tensorflow_datasets."
                ),
                "threads": integer(2, "Threads that read and decode.", low=1, high=MAX_WORKERS),
                "processes": integer(
                    0,
                    "Processes that read in training, each with data.threads; 0: threads of the "
                    "program.",
                    high=MAX_WORKERS,
                ),
                "prefetch": integer(4, "Batches read ahead.", low=1, high=MAX_WORKERS),
            }
        ),
    },
    "prepare": mutable_keys(
        {
            "input": choice(
                "folder",
                "What job prepare reads; the TFDS dataset is data.name, the size data.image_size.",
                INPUTS,
            ),
            "root": _path("Folder of the images, the official ILSVRC tars or the TFDS dataset."),
            "output": _path("Folder of the prepared dataset."),
            "splits": many(
                text("", ""),
                "Splits to make, 'NAME' or 'NAME=FROM': a folder, a list file or a TFDS split.",
                ("train", "val"),
            ),
            "class_table": _path(
                "synset_words.txt, imagenet_class_index.json or class_indices.json; None: root's."
            ),
            "columns": many(
                text("", ""), "list: a CSV's columns of path and label; (): found by name."
            ),
            "pattern": _pattern(
                r"(?:.*/)?(.+?)\.\d+\.\w+",
                "pattern: regular expression of file names; group 1 is the class.",
            ),
            "resize": choice(
                "crop",
                "crop: shorter side, then the center (paper 4.3); warp: both sides, as Caffe; "
                "short_side: no crop.",
                ("crop", "warp", "short_side"),
            ),
            "format": choice(
                "jpeg",
                "jpeg: a TFDS dataset of array_record; raw: uint8, mapped into memory, ten times "
                "larger.",
                ("jpeg", "raw"),
            ),
            "quality": integer(95, "Of the JPEGs (95 is the authors').", low=1, high=100),
            "processes": integer(None, "Processes; None: one per core.", low=1, high=MAX_WORKERS),
            "shard_size": integer(4096, "Maximum number of images in a shard.", low=1, high=2**24),
            "max_unreadable": number(0.01, "Share of images that may be unreadable.", high=1),
        }
    ),
    "augment": {
        "random_crop": flag(True, "Random crop positions in training (paper 4.1)."),
        "random_flip": flag(True, "Mirrors half of the training images (paper 4.1)."),
        "crop_group_size": integer(
            1,
            "Consecutive images that share crop and flip; the authors' code: 32.",
            low=1,
            high=2**20,
        ),
        "rotation_degrees": number(
            0.0, "Training images are rotated by up to this, before the crop.", high=180
        ),
        "mean": choice(
            "image",
            "What is subtracted. image: the center of the training split's mean image, wherever "
            "the crop is (as coded); image_at_crop: the mean image at the crop, mirrored with it "
            "(Caffe); channel: the mean color; given: channel_mean; none: nothing.",
            ("image", "image_at_crop", "channel", "given", "none"),
        ),
        "channel_mean": many(
            number(0.0, "", high=255), "mean=given: pixel values 0..255, one per channel."
        ),
        "mean_examples": integer(
            None,
            "Images that mean and colors are computed from, evenly spread; None: all.",
            low=1,
            high=2**40,
        ),
        "scale": number(
            1.0, "Factor on the pixels (0..255) after the subtraction.", low=1e-6, high=1e6
        ),
        "channel_std": many(
            number(0.0, "", low=1e-3, high=1e6),
            "Instead of scale: divisor of each channel, in pixel values 0..255.",
        ),
        "color_noise": choice(
            "none",
            "Noise along the principal components of the colors, one draw per image (paper 4.1). "
            "code: times the standard deviations, then the image divided by 1 + color_noise_std; "
            "text: times the eigenvalues, of pixels in 0..1.",
            ("none", "code", "text"),
        ),
        "color_noise_std": number(0.1, "Standard deviation of the noise's factors.", high=1e3),
        "color_noise_until": _duration(
            None, "Duration after which there is no color noise; None: never."
        ),
        **mutable_keys(
            {"draw_first_batch": flag(True, "Draws the first batch as the model sees it.")}
        ),
    },
    "train": {
        "batch_size": integer(128, "Examples per step, over all devices.", low=1, high=2**20),
        "accumulate": integer(
            1, "Parts of a batch, computed one after another to save memory.", low=1, high=2**20
        ),
        "duration": _duration("90 epochs", "Length of the run in steps, epochs or examples."),
        "log_every": _duration("50 steps", "Time between two train lines of metrics.jsonl."),
        "evaluate_every": _duration("1 epoch", "Time between two evaluations."),
        "init_from": _path("Workdir of a run whose parameters this run starts from."),
        "init_checkpoint": text("best", "Its 'best' or 'latest' checkpoint, or a step number."),
        **mutable_keys(
            {
                "stuck_after": _duration(
                    None,
                    "A loss within 1 % of ln(classes) for this long is a warning; None: a fifth of "
                    "the run, at most 5000 steps.",
                )
            }
        ),
    },
    "optimizer": {
        "rate_inside_velocity": flag(
            True,
            "True: the learning rate multiplies the gradient inside the velocity (paper, section "
            "5); False: it multiplies the velocity, as optax.sgd.",
        ),
        "momentum": number(0.9, "Share of the velocity kept at each step.", high=0.9999),
        "weight_decay": number(
            0.0005, "Coefficient of the decayed parameters, times the learning rate.", high=1e3
        ),
        "decay_pattern": _pattern("kernel", "Regular expression of the parameters that decay."),
        "rates": Table(
            RATE_ROW,
            {
                "norms": {"pattern": "Norm/"},
                "weights": {"pattern": "kernel"},
                "biases": {"pattern": "bias", "rate": 0.02},
            },
            "Learning rates; the first row whose pattern is found in a parameter's path applies.",
        ),
        "plateau": {
            "factor": number(0.1, "Factor on the rate when the error stops falling.", high=1),
            "patience": integer(
                2, "Evaluations without a better top-1 before that.", low=1, high=10**6
            ),
            "threshold": number(1e-4, "Minimum gain in top-1 (a fraction) that counts.", high=1),
        },
    },
    "checkpoint": mutable_keys(
        {
            "every": _duration("1 epoch", "Time between two checkpoints."),
            "keep": integer(2, "Newest checkpoints kept.", low=1, high=10**6),
            "keep_best": integer(1, "Best checkpoints kept by top-1.", low=1, high=10**6),
        }
    ),
    "evaluation": mutable_keys(
        {
            "batch_size": integer(
                None, "Examples per step; None: train.batch_size.", low=1, high=2**20
            ),
            "views": choice(
                "center",
                "Job evaluate: the center crop, the paper's ten crops (section 4.1), or every "
                "position of the whole image at several sizes. In training always the center.",
                VIEWS,
            ),
            "scales": many(
                integer(0, "", low=1, high=MAX_PIXELS),
                "dense: sides in pixels to resize images to; (): the model's input, "
                "data.image_size and as much larger again, such as (224, 256, 288).",
            ),
            "checkpoint": text("best", "Job evaluate: 'best', 'latest' or a step number."),
        }
    ),
    "parallel": mutable_keys(
        {
            "strategy": choice(
                "data",
                "single; data: each device takes a part of the batch; tower: one half of the "
                "model; hybrid: a part of the batch in convolutions, of the outputs in dense "
                "layers; stage: one device runs the convolutions, another the dense layers.",
                STRATEGIES,
            ),
            "devices": integer(None, "Devices used; None: all.", low=1, high=2**16),
            "processes": integer(
                None, "Processes of the run; None: set by the launcher, else 1.", low=1, high=2**16
            ),
            "process_index": integer(None, "Which of them this is, counted from 0.", high=2**16),
            "coordinator": text(None, "host:port of process 0, where all connect."),
            "micro_batches": integer(
                4, "stage: parts of the batch in progress at once.", low=1, high=2**20
            ),
            "cpu_devices": integer(
                None,
                "Devices that a CPU is divided into; None: 2 if it has two cores or more, else 1; "
                "with several processes 1 each.",
                low=1,
                high=2**10,
            ),
        }
    ),
    "estimate": mutable_keys(
        {
            "device": choice(
                "measured_cpu",
                "Job estimate: what parallel.devices are.",
                ("measured_cpu", *DEVICES),
            ),
            "examples": integer(1_281_167, "Images per epoch; ImageNet's.", low=1, high=2**40),
            "epochs": integer(90, "Epochs whose hours are estimated.", low=1, high=10**6),
        }
    ),
    **mutable_keys(
        {"compilation_cache": flag(True, "Keeps compiled programs in the user's cache folder.")}
    ),
}
