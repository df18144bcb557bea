"""Every key of a config: its default, type, bounds, unit and meaning. No default is set elsewhere.

A config file defines `get_config(arg)` and returns an ml_collections ConfigDict of the keys that
differ from these; `--config.a.b=c` overrides any of them. `command_line.py` merges the three and
`checks.py` finds values that contradict each other. Choices are the names of the registries.
"""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

from alexnet_jax import durations
from alexnet_jax.data.images import PREPARED_RESIZERS, RESIZERS
from alexnet_jax.data.source import SOURCES
from alexnet_jax.evaluation.feature_files import FEATURE_FORMATS
from alexnet_jax.evaluation.step import VIEWS
from alexnet_jax.models import MODEL_OPTIONS, list_models
from alexnet_jax.parallel.estimate import DEVICES
from alexnet_jax.parallel.mesh import STRATEGIES
from alexnet_jax.prepare import INPUTS
from alexnet_jax.schema import Key, Schema, Table, choice, flag, integer, many, number, text
from alexnet_jax.weights import WRITABLE

# A job is a module of the package `jobs`, which is not imported here: it imports the config.
_FILES = Path(__file__).parents[1].glob("jobs/[a-z]*.py")
JOBS = sorted({path.stem for path in _FILES} - {"dry_run"})  # that is a flag
PROGRAM = "stablehlo"
EXPORT_FORMATS = (*WRITABLE, PROGRAM)
_SLOW_PATTERN = re.compile(r"\([^()]*[*+}][^()]*\)[*+{]|(\)[*+{].*){2}")


def _check_pattern(value: str) -> None:
    """Raises ValueError for an invalid regular expression and for one that may not end."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value[:99]!r} is not a valid regular expression: {error}.") from error
    if _SLOW_PATTERN.search(value):
        raise ValueError(f"{value!r} repeats a group of repetitions: matching may not end.")


def _check_path(value: str) -> None:
    """Raises ValueError for a URL and for the home folder of a user who does not exist."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise ValueError(f"{value!r} is not a folder: mount the bucket and give the folder's path.")
    if os.path.expanduser(value).startswith("~"):
        raise ValueError(f"{value!r} starts with an unknown user: write the full path.")


def _check_match(pattern: str, expected: str, value: str) -> None:
    """Raises ValueError if the value does not match a regular expression from end to end."""
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{value!r} is not {expected}.")


def _matching(default: str | None, pattern: str, expected: str) -> Callable[[str], Key]:
    """Returns what makes a key for a string that matches a regular expression, from its `doc`."""
    check = functools.partial(_check_match, pattern, expected)
    return functools.partial(text, default, check=check)


_duration = functools.partial(text, check=durations.parse)
_pattern = functools.partial(text, check=_check_pattern)
path_key = functools.partial(text, None, check=_check_path)
_checkpoint = _matching("best", "best|latest|[0-9]{1,12}", "'best', 'latest' or a step number")
_address = _matching(None, r"\S+:[0-9]{1,5}", "host:port")
_sha256 = _matching(None, "[0-9A-Fa-f]{64}", "a sha256 of 64 hexadecimal digits")
_IMAGES = "Images: files, folders, globs such as 'DIR/*.jpg', lists (.txt, a path per line)."
_split = _matching("", r"[A-Za-z]\w*(=.+)?", "NAME or NAME=FROM")

SCHEMA: Schema = {
    "name": text("alexnet", "Name of the run; the workdir defaults to runs/NAME."),
    "job": choice("train", "What to do.", JOBS),
    "seed": integer(0, "Fixes weights, order, augmentation and dropout.", 0, 2**31 - 1),
    "model": MODEL_OPTIONS,
    "data": {
        "source": choice("tfds", "Where images come from.", SOURCES),
        "name": text("imagenet2012", "tfds: name of the dataset."),
        "train_split": text("train", "Split to train on, or a part of it: 'train[:90%]'."),
        "eval_split": text("validation", "Split to evaluate on; a folder takes 'val' for it."),
        "holdout": number(0.1, "folder without splits: fraction of each class held out.", 0, 0.9),
        "allow_empty_classes": flag(False, "Allows classes without images in the training split."),
        "image_size": integer(256, "Pixels a side of the squares made on the host.", 1, 2**14),
        "resize": choice(
            "crop",
            "How images become squares. crop: shorter side, then the center (paper 4.3); "
            "torchvision: the same with its filter and rounding; stretch: both sides, with its "
            "filter; warp: both sides, as Caffe.",
            RESIZERS,
        ),
        "channels": Key(3, int, "3: RGB; 1: grayscale.", choices=(1, 3)),
        "root": path_key(
            "folder: train/ and val/, or class folders; parquet: train-*.parquet; prepared: output "
            "of job prepare; tfds: its data_dir, None for ~/tensorflow_datasets."
        ),
        "threads": integer(2, "Threads that read and decode.", 1, 2**10),
        "processes": integer(0, "Processes that read in training; 0: only this one.", 0, 2**10),
        "prefetch": integer(4, "Batches read ahead.", 1, 2**10),
    },
    "prepare": {
        "input": choice("folder", "What job prepare reads; tfds: the dataset data.name.", INPUTS),
        "root": path_key("Folder of the images, the official ILSVRC tars or the TFDS dataset."),
        "output": path_key("Folder of the prepared dataset."),
        "splits": many(
            _split(""),
            "NAME or NAME=FROM: folder, list file, TFDS split.",
            ("train", "val"),
        ),
        "class_table": path_key("File of class labels, such as synset_words.txt; None: root's."),
        "columns": many(text("", ""), "list: a CSV's path and label columns; (): found by name."),
        "pattern": _pattern(r"(?:.*/)?(.+?)\.\d+\.\w+", "pattern: file names; group 1: the class."),
        "resize": choice(
            None,
            "As data.resize, whose value None takes; short_side: shorter side only.",
            PREPARED_RESIZERS,
        ),
        "format": choice("jpeg", "raw: uint8, memory-mapped, ten times larger.", ("jpeg", "raw")),
        "quality": integer(95, "JPEG quality (the authors used 95).", 1, 100),
        "processes": integer(None, "Processes; None: one per core.", 1, 2**10),
        "shard_size": integer(4096, "Maximum number of images in a shard.", 1, 2**24),
        "max_unreadable": number(0.01, "Share of images that may be unreadable.", 0, 1),
    },
    "augment": {
        "random_crop": flag(True, "Random crop positions in training (paper 4.1)."),
        "random_flip": flag(True, "Mirrors half of the training images (paper 4.1)."),
        "crop_group_size": integer(1, "Consecutive images that share crop and flip.", 1, 2**20),
        "rotation_degrees": number(0.0, "Maximum rotation in training, before the crop.", 0, 180),
        "mean": choice(
            "image",
            "What is subtracted. image: the center of the training split's mean image, wherever "
            "the crop is (as coded); image_at_crop: the mean image at the crop, mirrored with it "
            "(Caffe); channel: the mean color; given: channel_mean; none: nothing.",
            ("image", "image_at_crop", "channel", "given", "none"),
        ),
        "channel_mean": many(number(0.0, "", 0, 255), "mean=given: a value in 0..255 per channel."),
        "mean_examples": integer(None, "Images for mean and colors; None: all.", 1, 10**12),
        "scale": number(1.0, "Factor on the pixels (0..255) after the subtraction.", 1e-6, 1e6),
        "channel_std": many(number(1.0, "", 1e-3, 1e6), "Instead of scale: a divisor per channel."),
        "color_noise": choice(
            "none",
            "Noise along the principal components of the colors, one draw per image (paper 4.1). "
            "code: times the standard deviations, then the image divided by 1 + color_noise_std; "
            "text: times the eigenvalues, of pixels in 0..1.",
            ("none", "code", "text"),
        ),
        "color_noise_std": number(0.1, "Standard deviation of the noise's factors.", 0, 1e3),
        "color_noise_until": _duration(None, "When color noise ends; None: never."),
        "draw_first_batch": flag(True, "Draws the first batch after augmentation."),
    },
    "train": {
        "batch_size": integer(128, "Examples per step, over all devices.", 1, 2**20),
        "accumulate": integer(1, "Parts of a batch, one after another to save memory.", 1, 2**20),
        "duration": _duration("90 epochs", "Length of the run in steps, epochs or examples."),
        "log_every": _duration("50 steps", "Time between two train lines of metrics.jsonl."),
        "stuck_after": _duration(
            None, "Time at the loss of guessing until a warning; None: total / 5, 50 to 5000 steps."
        ),
        "evaluate_every": _duration("1 epoch", "Time between two evaluations."),
        "init_from": path_key(
            "Workdir of a run, its checkpoint or a weight file whose parameters this run starts "
            "from. Keys of the model and its preprocessing that are not set are as there."
        ),
        "init_checkpoint": _checkpoint("Of that run: 'best', 'latest' or a step number."),
        "init_layers": _pattern(
            ".", "Regular expression of the paths of the parameters to take, such as 'Conv/'."
        ),
        "init_new_head": flag(
            False, "Leaves out the output layer, as for other classes: it is initialized."
        ),
        "scratch_baseline": flag(
            False, "Then trains from scratch, at the rates of the run started from, to compare."
        ),
    },
    "optimizer": {
        "rate_inside_velocity": flag(
            True,
            "True: the learning rate multiplies the gradient inside the velocity (paper, section "
            "5); False: it multiplies the velocity, as optax.sgd.",
        ),
        "momentum": number(0.9, "Share of the velocity kept at each step.", 0, 0.9999),
        "weight_decay": number(0.0005, "Coefficient of decay, times the learning rate.", 0, 1e3),
        "decay_pattern": _pattern("kernel", "Regular expression of the parameters that decay."),
        "rates": Table(  # of rates; the first whose pattern is found in a parameter's path applies
            {
                "pattern": _pattern(
                    "", "Regular expression of parameter paths such as Conv/conv1/kernel."
                ),
                "schedule": choice(
                    "constant", "How it changes.", ("constant", "step", "dexp", "plateau")
                ),
                "rate": number(0.01, "Learning rate at the start; 0 freezes.", 0, 1e3),
                "boundaries": many(_duration("", ""), "step: when the rate changes."),
                "step_values": many(number(0.0, "", 0, 1e3), "step: the rate after each boundary."),
                "factor": number(250.0, "dexp: the first rate divided by the last.", 1, 1e12),
                "num_stages": integer(4, "dexp: number of equally long stages.", 2, 100),
            },
            {
                "norms": {"pattern": "Norm/"},
                "weights": {"pattern": "kernel"},
                "biases": {"pattern": "bias", "rate": 0.02},
            },
        ),
        "plateau": {
            "factor": number(0.1, "Factor on the rate when top-1 stops rising.", 0, 1),
            "patience": integer(2, "Evaluations without a better top-1 before that.", 1, 10**6),
            "threshold": number(1e-4, "Minimum gain in top-1 (a fraction) that counts.", 0, 1),
        },
    },
    "checkpoint": {
        "every": _duration("1 epoch", "Time between two checkpoints."),
        "keep": integer(2, "Newest checkpoints kept.", 1, 10**6),
        "keep_best": integer(1, "Best checkpoints kept by top-1.", 1, 10**6),
    },
    "evaluation": {
        "batch_size": integer(None, "Examples per step; None: train.batch_size.", 1, 2**20),
        "views": choice(
            "center",
            "Job evaluate: the center crop, the paper's ten crops (section 4.1), or every position "
            "of the whole image at several sizes. In training always the center.",
            VIEWS,
        ),
        "scales": many(
            integer(0, "", 1, 2**14),
            "dense: image sides in pixels; (): the model's input, data.image_size and as much "
            "larger again, such as (224, 256, 288).",
        ),
        "checkpoint": _checkpoint(
            "Which of a workdir jobs use: 'best', 'latest' or a step number."
        ),
    },
    "weights": {  # how to read a weight file
        "file": path_key("Job import_weights: the file, or the folder of Orbax."),
        "model": choice(None, "Name of its model; None: by names and shapes.", list_models()),
        "classes": path_key(
            "File of its classes; None: its own, else ImageNet's for 1,000 outputs, else numbers."
        ),
        "mean": path_key("Mean image of a Caffe model, a .binaryproto file."),
        "channel_order": choice(None, "Of its first layer; None: as usual.", ("rgb", "bgr")),
        "sha256": _sha256("Refuses a file with another checksum."),
        "partial": flag(False, "Accepts a file without some layers, which are initialized."),
    },
    "export": {
        "output": path_key("File to write; None: model.FORMAT in the workdir."),
        "format": choice(
            None,
            "None: the ending of output. safetensors: torchvision's layers and names; npy: Caffe's "
            "layers, as Guerzhoy's file; onnx and npz: any model; stablehlo: a program for JAX.",
            EXPORT_FORMATS,
        ),
    },
    "predict": {
        "images": many(text("", ""), _IMAGES),
        "output": path_key("Folder of the results; None: predictions/ in the workdir."),
        "views": choice(
            "center", "The center crop, or the mean over the paper's ten.", ("center", "ten_crops")
        ),
        "top": integer(5, "Classes listed for each image, the most probable.", 1, 1000),
        "batch_size": integer(128, "Images per step.", 1, 2**20),
        "frames": flag(
            None,
            "Whether the images are frames of a video, for a figure of its classes over time; "
            "None: if they are in one folder and numbered in equal steps.",
        ),
    },
    "features": {
        "images": many(text("", ""), f"{_IMAGES} (): the evaluation split."),
        "layers": many(
            text("", ""),
            "Names of layers; their outputs, after the activation that follows, are written. (): "
            "the last one with weights before the output layer, such as fc7.",
        ),
        "output": path_key("Folder of the results; None: features/ in the workdir."),
        "format": choice(
            "npy",
            "npy: a file for each layer; npz: one file; parquet: one file, a column for each.",
            FEATURE_FORMATS,
        ),
        "batch_size": integer(128, "Images per step.", 1, 2**20),
    },
    "parallel": {
        "strategy": choice(
            "data",
            "single; data: each device takes a part of the batch; tower: one half of the model; "
            "hybrid: a part of the batch in convolutions, of the outputs in dense layers; stage: "
            "one device runs the convolutions, another the dense layers.",
            STRATEGIES,
        ),
        "devices": integer(None, "Devices used; None: all.", 1, 2**16),
        "processes": integer(None, "Processes; None: set by the launcher, else 1.", 1, 2**16),
        "process_index": integer(None, "Index of this process, from 0.", 0, 2**16),
        "coordinator": _address("host:port of process 0, where all connect."),
        "micro_batches": integer(4, "stage: parts of the batch in progress at once.", 1, 2**20),
        "cpu_devices": integer(
            None, "Emulated devices of a CPU; None: 2, or 1 per process.", 1, 2**10
        ),
    },
    "estimate": {
        "device": choice("measured_cpu", "Kind of device.", ("measured_cpu", *DEVICES)),
        "examples": integer(1_281_167, "Images per epoch; ImageNet's.", 1, 10**12),
        "epochs": integer(90, "Epochs whose hours are estimated.", 1, 10**6),
    },
    "compilation_cache": flag(True, "Keeps compiled programs in the user's cache folder."),
}
