"""Every key of a config: its default, type, unit and meaning. No default stands anywhere else.

A config file defines `get_config(arg)` and returns an ml_collections ConfigDict of the keys that
differ from these; `--config.a.b=c` changes any of them. `command_line.py` brings the three
together and `config_rules.py` finds the values that contradict each other.
"""

from alexnet_jax.data.source import SOURCES
from alexnet_jax.models.options import MODEL_OPTIONS
from alexnet_jax.prepare import INPUTS
from alexnet_jax.schema import Key, Schema, Table, mutable_keys

RATE_ROW = {
    "pattern": Key("", str, "Regular expression; of rows that match, the longest holds."),
    "schedule": Key(
        "constant", str, "How the rate falls.", choices=("constant", "step", "dexp", "plateau")
    ),
    "rate": Key(0.01, float, "Learning rate at the start.", low=0),
    "boundaries": Key((), tuple, "step: durations after which the rate changes.", element=str),
    "step_values": Key(
        (), tuple, "step: the rate from each boundary on; 0 freezes.", element=float
    ),
    "factor": Key(250.0, float, "dexp: the first rate over the last.", low=1),
    "levels": Key(4, int, "dexp: number of equally long levels.", low=2),
}

SCHEMA: Schema = {
    "name": Key("alexnet", str, "Name of the run; the workdir defaults to runs/NAME."),
    "job": Key(
        "train",
        str,
        "What to do.",
        choices=("train", "evaluate", "plan", "prepare", "profile_input", "summary"),
        mutable_on_resume=True,
    ),
    "seed": Key(0, int, "Fixes weights, order, augmentation and dropout.", low=0, high=2**31 - 1),
    "model": MODEL_OPTIONS,
    "data": {
        "source": Key(
            "tfds",
            str,
            "Where pictures come from.",
            choices=tuple(SOURCES),
        ),
        "root": Key(
            None,
            str,
            "folder: holds train/ and val/, or only class folders; parquet: holds "
            "train-*.parquet; prepared: the output of job prepare; tfds: its data_dir, None for "
            "~/tensorflow_datasets.",
            optional=True,
            mutable_on_resume=True,
        ),
        "name": Key("imagenet2012", str, "tfds: the data set's name."),
        "train_split": Key("train", str, "Split to train on, or a part of it: 'train[:90%]'."),
        "eval_split": Key("validation", str, "Split to evaluate on; a folder takes 'val' for it."),
        "holdout": Key(
            0.1,
            float,
            "folder: share of each class held out where the root has no train/ but classes alone.",
            low=0,
            high=0.9,
        ),
        "allow_empty_classes": Key(
            False, bool, "Train although a class of the training split has no images."
        ),
        "image_size": Key(256, int, "Pixels: shorter side and center crop on the host.", low=1),
        "channels": Key(3, int, "3: RGB; 1: gray.", choices=(1, 3)),
        "threads": Key(2, int, "Threads that read and decode.", low=1, mutable_on_resume=True),
        "processes": Key(
            0,
            int,
            "Processes that read in training, each with data.threads; 0: threads of the program.",
            low=0,
            mutable_on_resume=True,
        ),
        "prefetch": Key(4, int, "Batches read ahead.", low=1, mutable_on_resume=True),
    },
    "prepare": mutable_keys(
        {
            "input": Key(
                "folder",
                str,
                "What job prepare reads; the TFDS dataset is data.name, the size data.image_size.",
                choices=tuple(INPUTS),
            ),
            "root": Key(
                None,
                str,
                "Folder the pictures, the official ILSVRC tars or the TFDS set lie in.",
                optional=True,
            ),
            "output": Key(None, str, "Folder of the prepared set.", optional=True),
            "splits": Key(
                ("train", "val"),
                tuple,
                "Splits to make, as 'NAME' or 'NAME=PLACE': a folder, a list file or a TFDS split.",
                element=str,
            ),
            "class_table": Key(
                None,
                str,
                "synset_words.txt, imagenet_class_index.json or class_indices.json; None: root's.",
                optional=True,
            ),
            "columns": Key(
                (),
                tuple,
                "list: a CSV's columns of path and label; (): by their names.",
                element=str,
            ),
            "pattern": Key(
                r"(?:.*/)?(.+?)\.\d+\.\w+",
                str,
                "pattern: regular expression of the pictures' names, group 1 the class.",
            ),
            "resize": Key(
                "crop",
                str,
                "crop: shorter side, then the center (paper 4.3); warp: both sides, as Caffe; "
                "short_side: no crop.",
                choices=("crop", "warp", "short_side"),
            ),
            "format": Key(
                "jpeg",
                str,
                "jpeg: a TFDS set of array_record; raw: uint8 to map into memory, ten times that.",
                choices=("jpeg", "raw"),
            ),
            "quality": Key(95, int, "Of the JPEGs (95 is the authors').", low=1, high=100),
            "processes": Key(None, int, "Processes; None: one a core.", optional=True, low=1),
            "shard_size": Key(4096, int, "The most pictures of a shard.", low=1, high=2**24),
            "max_unreadable": Key(
                0.01, float, "Share of pictures that may be unreadable.", low=0, high=1
            ),
        }
    ),
    "augment": {
        "random_crop": Key(True, bool, "Crops at random places in training (paper 4.1)."),
        "random_flip": Key(True, bool, "Mirrors half of the training pictures (paper 4.1)."),
        "crop_group_size": Key(
            1, int, "Consecutive pictures that share crop and flip; the authors' code: 32.", low=1
        ),
        "rotation_degrees": Key(
            0.0,
            float,
            "Training pictures are turned by up to this much either way, before the crop.",
            low=0,
            high=180,
        ),
        "mean": Key(
            "image",
            str,
            "What is subtracted. image: the center of the training split's mean image, wherever "
            "the crop lies (as coded); image_at_crop: the mean image where the crop lies, mirrored "
            "with it (Caffe); channel: the mean color; given: channel_mean; none: nothing.",
            choices=("image", "image_at_crop", "channel", "given", "none"),
        ),
        "channel_mean": Key((), tuple, "given: gray levels 0..255, one a channel.", element=float),
        "mean_examples": Key(
            None,
            int,
            "Pictures mean and colors are taken over, evenly spread; None: all to train on.",
            optional=True,
            low=1,
        ),
        "scale": Key(1.0, float, "Factor on the pixels (0..255) after the subtraction.", low=0),
        "channel_std": Key(
            (),
            tuple,
            "In place of scale: what each channel is divided by, in gray levels 0..255.",
            element=float,
            low=0,
        ),
        "color_noise": Key(
            "none",
            str,
            "Noise along the principal axes of the colors, a draw a picture (paper 4.1). code: "
            "times the standard deviations, then the picture divided by 1 + color_noise_std; text: "
            "times the eigenvalues, of pixels in 0..1.",
            choices=("none", "code", "text"),
        ),
        "color_noise_std": Key(0.1, float, "Standard deviation of the noise's factors.", low=0),
        "color_noise_until": Key(
            None, str, "Duration after which there is no color noise; None: never.", optional=True
        ),
        "draw_first_batch": Key(
            True, bool, "Draws the first batch as the net is given it.", mutable_on_resume=True
        ),
    },
    "train": {
        "batch_size": Key(128, int, "Examples a step, over all devices.", low=1),
        "accumulate": Key(
            1, int, "Parts in which a step takes its batch, in the memory of one.", low=1
        ),
        "duration": Key("90 epochs", str, "Length of the run in steps, epochs or examples."),
        "log_every": Key("50 steps", str, "Time between two train lines of metrics.jsonl."),
        "evaluate_every": Key("1 epoch", str, "Time between two evaluations."),
        "stuck_after": Key(
            "5000 steps",
            str,
            "A loss within 1 % of ln(classes) for this long brings a warning.",
            mutable_on_resume=True,
        ),
    },
    "optimizer": {
        "rule": Key(
            "paper",
            str,
            "paper: the learning rate inside the velocity (section 5); sgd: optax.sgd's, outside.",
            choices=("paper", "sgd"),
        ),
        "momentum": Key(0.9, float, "Share of the velocity kept at each step.", low=0, high=1),
        "weight_decay": Key(0.0005, float, "Pull on the decayed parameters, times rate.", low=0),
        "decay_pattern": Key("kernel", str, "Regular expression of the parameters that decay."),
        "rates": Table(
            RATE_ROW,
            {
                "weights": {"pattern": "kernel"},
                "biases": {"pattern": "bias", "rate": 0.02},
                "batch_norms": {"pattern": "_norm/"},
            },
            "Learning rates by parameter.",
        ),
        "plateau": {
            "factor": Key(0.1, float, "Rate's factor when the error stops falling.", low=0, high=1),
            "patience": Key(2, int, "Evaluations without a better top-1 before that.", low=1),
            "threshold": Key(1e-4, float, "Least gain in top-1 (a fraction) that counts.", low=0),
        },
    },
    "checkpoint": {
        "every": Key("1 epoch", str, "Time between two checkpoints.", mutable_on_resume=True),
        "keep": Key(2, int, "Newest checkpoints kept.", low=1, mutable_on_resume=True),
        "keep_best": Key(1, int, "Best checkpoints kept by top-1.", low=0, mutable_on_resume=True),
    },
    "evaluation": {
        "batch_size": Key(
            None,
            int,
            "Examples a step; None: train.batch_size.",
            optional=True,
            low=1,
            mutable_on_resume=True,
        ),
        "views": Key(
            "center",
            str,
            "Job evaluate: the center crop, the paper's ten crops (section 4.1), or every place of "
            "the whole picture at several sizes. In training always the center.",
            choices=("center", "ten_crops", "dense"),
            mutable_on_resume=True,
        ),
        "scales": Key(
            (),
            tuple,
            "dense: sides in pixels to resize pictures to; (): the net's input, data.image_size "
            "and as much larger again, as (224, 256, 288).",
            element=int,
            low=1,
            mutable_on_resume=True,
        ),
        "checkpoint": Key(
            "best",
            str,
            "Job evaluate: 'best', 'latest' or a step number.",
            mutable_on_resume=True,
        ),
    },
    "parallel": {
        "strategy": Key(
            "data",
            str,
            "single; data: each device takes a part of the batch; tower: a half of the net; "
            "hybrid: a part of the batch in convolutions, of the outputs in dense layers; "
            "stage: one device runs the convolutions, another the dense layers.",
            choices=("single", "data", "tower", "hybrid", "stage"),
            mutable_on_resume=True,
        ),
        "devices": Key(
            None,
            int,
            "Devices used; None: all there are.",
            optional=True,
            low=1,
            mutable_on_resume=True,
        ),
        "processes": Key(
            None,
            int,
            "Processes of the run; None: as the launcher says, else one.",
            optional=True,
            low=1,
            mutable_on_resume=True,
        ),
        "process": Key(
            None,
            int,
            "Which of them this is, from 0 on.",
            optional=True,
            low=0,
            mutable_on_resume=True,
        ),
        "coordinator": Key(
            None,
            str,
            "host:port of process 0, where all meet.",
            optional=True,
            mutable_on_resume=True,
        ),
        "micro_batches": Key(
            4, int, "stage: parts of the batch on their way at once.", low=1, mutable_on_resume=True
        ),
        "cpu_devices": Key(
            None,
            int,
            "Devices a CPU is divided into; None: 2 where it has two cores or more, else 1; of "
            "several processes 1 each.",
            optional=True,
            low=1,
            mutable_on_resume=True,
        ),
    },
    "plan": {
        "device": Key(
            "measured_cpu",
            str,
            "Job plan: what parallel.devices are.",
            choices=("measured_cpu", "h100", "a100", "tpu_v5e"),
            mutable_on_resume=True,
        ),
        "examples": Key(
            1_281_167, int, "Pictures of an epoch; ImageNet's.", low=1, mutable_on_resume=True
        ),
        "epochs": Key(90, int, "Epochs whose hours are told.", low=1, mutable_on_resume=True),
    },
    "compilation_cache": Key(
        True, bool, "Keep compiled programs in the user's cache folder.", mutable_on_resume=True
    ),
}

DURATIONS = (
    "train.duration",
    "train.log_every",
    "train.evaluate_every",
    "train.stuck_after",
    "checkpoint.every",
    "augment.color_noise_until",
)
