"""Every key of a config: its default, type, unit and meaning. No default stands anywhere else.

A config file defines `get_config(arg)` and returns an ml_collections ConfigDict of the keys that
differ from these; `--config.a.b=c` changes any of them. `command_line.py` brings the three
together and `config_rules.py` finds the values that contradict each other.
"""

from alexnet_jax.schema import Key, Schema, Table, free

RATE_ROW = {
    "pattern": Key("", str, "Regular expression; of rows that match, the longest holds."),
    "schedule": Key(
        "constant", str, "How the rate falls.", choices=("constant", "step", "dexp", "plateau")
    ),
    "rate": Key(0.01, float, "Learning rate at the start.", low=0),
    "boundaries": Key((), tuple, "step: durations after which the rate changes.", element=str),
    "later_rates": Key(
        (), tuple, "step: the rate from each boundary on; 0 freezes.", element=float
    ),
    "factor": Key(250.0, float, "dexp: the first rate over the last.", low=1),
    "levels": Key(4, int, "dexp: number of equally long levels.", low=2),
}

LAYER_ROW = {
    "features": Key(None, int, "Maps or outputs it makes.", optional=True, low=1),
    "size": Key(
        None, int, "Side of the kernel, or width of a norm's window.", optional=True, low=1
    ),
    "stride": Key(None, int, "Pixels from a window to the next.", optional=True, low=1),
    "padding": Key(None, int, "Zeros around the maps, in pixels.", optional=True, low=0),
    "overhang": Key(
        None, bool, "Whether a last window may reach over the right and bottom edge.", optional=True
    ),
    "groups": Key(None, int, "Parts that see their own maps alone.", optional=True, low=1),
    "window": Key(None, int, "Side of a pool's window, in pixels.", optional=True, low=1),
    "kind": Key(None, str, "Of a pool.", optional=True, choices=("max", "average")),
    "output": Key(None, int, "Cells a side of an adaptive pool.", optional=True, low=1),
    "k": Key(None, float, "The constant of a response norm.", optional=True, low=0),
    "alpha": Key(None, float, "A response norm's factor on the plain sum.", optional=True, low=0),
    "beta": Key(None, float, "A response norm's power.", optional=True, low=0),
    "momentum": Key(
        None, float, "Share of batch norm's running values kept.", optional=True, low=0, high=1
    ),
    "epsilon": Key(None, float, "Added to batch norm's variance.", optional=True, low=0),
    "rate": Key(None, float, "Share that a dropout drops.", optional=True, low=0, high=0.99),
    "rescale": Key(
        None,
        str,
        "Whether a dropout's factor is applied at test time, as the paper, or in training.",
        optional=True,
        choices=("test", "train"),
    ),
    "std": Key(None, float, "Standard deviation of the first weights.", optional=True, low=0),
    "bias": Key(None, float, "Value of the first biases.", optional=True),
}

SCHEMA: Schema = {
    "name": Key("alexnet", str, "Name of the run; the workdir defaults to runs/NAME."),
    "job": Key(
        "train",
        str,
        "What to do.",
        choices=("train", "evaluate", "plan", "prepare", "profile_input", "summary"),
        may_change=True,
    ),
    "seed": Key(0, int, "Fixes weights, order, augmentation and dropout.", low=0, high=2**31 - 1),
    "model": {
        "name": Key("paper", str, "A row of models/variants.py."),
        "num_classes": Key(
            None, int, "Outputs; None: as many as the data have classes.", optional=True, low=2
        ),
        "dtype": Key(
            None,
            str,
            "Type the net computes in; None: that of its parameters, float32.",
            optional=True,
            choices=("bfloat16",),
        ),
        # what follows changes the row; None leaves it as it is
        "init": Key(
            None,
            str,
            "How weights and biases start.",
            optional=True,
            choices=(
                "source",
                "text",
                "one_tower",
                "caffe",
                "caffenet",
                "torch",
                "kaiming",
                "xavier",
            ),
        ),
        "layers": Table(LAYER_ROW, {}, "Fields of single layers, by the layer's name."),
        "without": Key(None, str, "The name of a convolution to take out.", optional=True),
        "response_norm": Key(
            None,
            str,
            "No response norm, or one after each convolution.",
            optional=True,
            choices=("none", "all"),
        ),
        "pooling": Key(
            None,
            str,
            "Pools of 2 x 2 that do not overlap (configuration 147).",
            optional=True,
            choices=("non_overlapping",),
        ),
        "activation": Key(
            None,
            str,
            "In place of ReLU; abs_tanh pools by averages.",
            optional=True,
            choices=("relu", "tanh", "sigmoid", "abs_tanh"),
        ),
        "dropout": Key(
            None, float, "Rate of every dropout; 0: none.", optional=True, low=0, high=0.99
        ),
        "fully_convolutional": Key(
            None, bool, "Dense layers run at every place of larger pictures.", optional=True
        ),
        "input_size": Key(None, int, "Pixels of the net's input, a side.", optional=True, low=1),
    },
    "data": {
        "source": Key(
            "tfds",
            str,
            "Where pictures come from.",
            choices=("digits", "folder", "prepared", "tfds"),
        ),
        "root": Key(
            None,
            str,
            "folder: holds train/ and val/, or class folders alone; prepared: what job prepare "
            "wrote; tfds: its data_dir, None for ~/tensorflow_datasets.",
            optional=True,
            may_change=True,
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
        "image_size": Key(256, int, "Pixels: shorter side and centre crop on the host.", low=1),
        "channels": Key(3, int, "3: RGB; 1: grey.", choices=(1, 3)),
        "threads": Key(2, int, "Threads that read and decode.", low=1, may_change=True),
        "processes": Key(
            0,
            int,
            "Processes that read in training, each with data.threads; 0: threads of the program.",
            low=0,
            may_change=True,
        ),
        "prefetch": Key(4, int, "Batches read ahead.", low=1, may_change=True),
    },
    "prepare": free(
        {
            "input": Key(
                "folder",
                str,
                "What job prepare reads; the TFDS set is data.name, the size data.image_size.",
                choices=("folder", "list", "pattern", "ilsvrc", "tfds"),
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
                "crop: shorter side, then the centre (paper 4.3); warp: both sides, as Caffe; "
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
        "crop_shared_by": Key(
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
            "What is subtracted. image: the centre of the training split's mean image, wherever "
            "the crop lies (as coded); image_at_crop: the mean image where the crop lies, mirrored "
            "with it (Caffe); channel: the mean colour; given: channel_mean; none: nothing.",
            choices=("image", "image_at_crop", "channel", "given", "none"),
        ),
        "channel_mean": Key((), tuple, "given: grey levels 0..255, one a channel.", element=float),
        "mean_examples": Key(
            None,
            int,
            "Pictures mean and colours are taken over, evenly spread; None: all to train on.",
            optional=True,
            low=1,
        ),
        "scale": Key(1.0, float, "Factor on the pixels (0..255) after the subtraction.", low=0),
        "channel_std": Key(
            (),
            tuple,
            "In place of scale: what each channel is divided by, in grey levels 0..255.",
            element=float,
            low=0,
        ),
        "colour": Key(
            "none",
            str,
            "Noise along the principal axes of the colours, a draw a picture (paper 4.1). code: "
            "times the standard deviations, then the picture divided by 1 + colour_std; text: "
            "times the eigenvalues, of pixels in 0..1.",
            choices=("none", "code", "text"),
        ),
        "colour_std": Key(0.1, float, "Standard deviation of the noise's factors.", low=0),
        "colour_off": Key(
            None, str, "Duration after which there is no colour noise; None: never.", optional=True
        ),
        "draw_first_batch": Key(
            True, bool, "Draws the first batch as the net is given it.", may_change=True
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
            may_change=True,
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
        "every": Key("1 epoch", str, "Time between two checkpoints.", may_change=True),
        "keep": Key(2, int, "Newest checkpoints kept.", low=1, may_change=True),
        "keep_best": Key(1, int, "Best checkpoints kept by top-1.", low=0, may_change=True),
    },
    "evaluation": {
        "batch_size": Key(
            None,
            int,
            "Examples a step; None: train.batch_size.",
            optional=True,
            low=1,
            may_change=True,
        ),
        "views": Key(
            "centre",
            str,
            "Job evaluate: the centre crop, the paper's ten crops (section 4.1), or every place of "
            "the whole picture at several sizes. In training always the centre.",
            choices=("centre", "ten_crops", "dense"),
            may_change=True,
        ),
        "scales": Key(
            (),
            tuple,
            "dense: sides in pixels to resize pictures to; (): the net's input, data.image_size "
            "and as much larger again, as (224, 256, 288).",
            element=int,
            low=1,
            may_change=True,
        ),
        "checkpoint": Key(
            "best",
            str,
            "Job evaluate: 'best', 'latest' or a step number.",
            may_change=True,
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
            may_change=True,
        ),
        "devices": Key(
            None,
            int,
            "Devices used; None: all there are.",
            optional=True,
            low=1,
            may_change=True,
        ),
        "processes": Key(
            None,
            int,
            "Processes of the run; None: as the launcher says, else one.",
            optional=True,
            low=1,
            may_change=True,
        ),
        "process": Key(
            None, int, "Which of them this is, from 0 on.", optional=True, low=0, may_change=True
        ),
        "coordinator": Key(
            None, str, "host:port of process 0, where all meet.", optional=True, may_change=True
        ),
        "micro_batches": Key(
            4, int, "stage: parts of the batch on their way at once.", low=1, may_change=True
        ),
        "cpu_devices": Key(
            None,
            int,
            "Devices a CPU is divided into; None: 2 where it has two cores or more, else 1; of "
            "several processes 1 each.",
            optional=True,
            low=1,
            may_change=True,
        ),
    },
    "plan": {
        "device": Key(
            "this_cpu",
            str,
            "Job plan: what parallel.devices are.",
            choices=("this_cpu", "h100", "a100", "tpu_v5e"),
            may_change=True,
        ),
        "examples": Key(
            1_281_167, int, "Pictures of an epoch; ImageNet's.", low=1, may_change=True
        ),
        "epochs": Key(90, int, "Epochs whose hours are told.", low=1, may_change=True),
    },
    "compilation_cache": Key(
        True, bool, "Keep compiled programs in the user's cache folder.", may_change=True
    ),
}

DURATIONS = (
    "train.duration",
    "train.log_every",
    "train.evaluate_every",
    "train.stuck_after",
    "checkpoint.every",
    "augment.colour_off",
)
