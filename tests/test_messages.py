"""The wording of error messages, pinned only here: the problem, where it is, the fix."""

from collections.abc import Callable
from pathlib import Path

import narrow_models
import numpy as np
import pytest
import torch_archive
from PIL import Image

from alexnet_jax.config.defaults import JOBS
from alexnet_jax.errors import EXIT_INPUT

ROOT = Path(__file__).parents[1]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
PAPER = f"--config={ROOT}/configs/paper.py"
FOLDER = "--config.data.source=folder"

# Arrays of torchvision's names but for these
OTHER = {
    name: array
    for name, array in narrow_models.torchvision_arrays().items()
    if name not in ("features.0.bias", "features.3.weight")
} | {"features.0.weight": np.zeros((2, 3, 9, 9), "f4"), "head.bias": np.zeros(3, "f4")}

# Arguments of the program, and all that it says; {tmp} is a folder of its own.
MESSAGES = {
    "no config": ([], "Set a config: --config=configs/quickstart.py (see --help)."),
    "no config for training": (
        ["train"],
        "Name a run or a config: train PATH or --config=FILE (see --help).",
    ),
    "no such job": (
        ["predct", "runs/mine", "x"],
        "predct: there is no such job. Did you mean 'predict'?",
    ),
    "one word too many": (
        [QUICKSTART, "evaluate", "{tmp}/one", "extra"],
        "Errors in the config (1):\n  extra: is one word too many; write 'evaluate WORKDIR'.",
    ),
    "argument of a config": (
        [f"--config={ROOT}/configs/small_images.py:cifar26"],
        f"{ROOT}/configs/small_images.py:cifar26: no recipe for 'cifar26': choose one of "
        "cifar_26, cifar_19, cifar_18, cifar_13, cifar_11, digits. Did you mean 'cifar_26'?",
    ),
    "argument of another config": (
        [f"--config={ROOT}/configs/finetune.py:frozn"],
        f"{ROOT}/configs/finetune.py:frozn: unknown argument 'frozn': frozen or full. Did you mean "
        "'frozen'?",
    ),
    "nothing to fine-tune": (
        [f"--config={ROOT}/configs/finetune.py", "--config.data.root={tmp}/one"],
        "Errors in the config (1):\n  train.init_new_head: requires --config.train.init_from, and "
        "has no effect without it.",
    ),
    "no such step": (
        ["evaluate", "{tmp}/steps/checkpoints/137"],
        "There is no checkpoint 137 in {tmp}/steps/checkpoints, only 20, 100.",
    ),
    "unknown flag": (
        [QUICKSTART, "--wokdir=x"],
        "Errors in the config (1):\n  --wokdir=x: there is no such flag. Did you mean '--workdir'?",
    ),
    "all errors at once": (
        [
            *(QUICKSTART, "--config.train.batchsize=3", "--config.seed=x", "--config.job=trian"),
            "--config.data.channels=3",
        ],
        "Errors in the config (4):\n"
        "  seed: 'x' is not an integer.\n"
        f"  job: 'trian' is not one of {', '.join(map(repr, JOBS))}. Did you mean 'train'?\n"
        "  train.batchsize: there is no such key. Did you mean 'train.batch_size'?\n"
        "  data.channels: 3, but the model takes 1.",
    ),
    "duration": (
        [QUICKSTART, "--config.train.duration=soon"],
        "Errors in the config (1):\n  train.duration: 'soon' is not a duration: write a positive "
        "number and one unit of steps, epochs, examples, as in '90 epochs'.",
    ),
    "no effect": (
        [QUICKSTART, "--config.optimizer.rates.weights.step_values=(0.1,)"],
        "Errors in the config (1):\n  optimizer.rates.weights.step_values: has no effect without "
        "optimizer.rates.weights.schedule 'step'.",
    ),
    "devices": (
        [QUICKSTART, "--config.parallel.devices=9"],
        "Errors in the config (1):\n  parallel.devices: 9 requested, but only 4 available; a CPU "
        "has as many as parallel.cpu_devices.",
    ),
    "bucket": (
        [QUICKSTART, "--workdir=gs://bucket/run"],
        "Errors in the config (1):\n  --workdir: 'gs://bucket/run' is not a folder: mount the "
        "bucket and give the folder's path.",
    ),
    "coordinator": (
        [
            *(QUICKSTART, "--config.parallel.processes=2", "--config.parallel.process_index=0"),
            "--config.parallel.coordinator=nonsense:99999999",
        ],
        "Errors in the config (1):\n  parallel.coordinator: 'nonsense:99999999' is not host:port.",
    ),
    "no folder": (
        [PAPER, FOLDER, "--config.data.root={tmp}/absent"],
        "There is no folder {tmp}/absent: set --config.data.root=DIR (job=prepare: prepare.root).",
    ),
    "no split": (
        [PAPER, FOLDER, "--config.data.root={tmp}/empty"],
        "{tmp}/empty has no folder for split 'train': expected {tmp}/empty/train/CLASS/IMAGE.jpg "
        "and {tmp}/empty/val/CLASS/IMAGE.jpg with the same classes, or "
        "{tmp}/empty/CLASS/IMAGE.jpg. Parts of a split are written as 'train[:90%]' and "
        "'train[90%:]'.",
    ),
    "one class": (
        [PAPER, FOLDER, "--config.data.root={tmp}/one"],
        "The training images of {tmp}/one have only the class 'cat', and a classifier needs two or "
        "more: check --config.data.root and --config.data.train_split.",
    ),
    "too few outputs": (
        [QUICKSTART, "--config.model.layers.fc8.features=5"],
        "The model has 5 outputs, but the data have 10 classes: leave model.num_classes and "
        "model.layers.fc8.features unset, or raise them.",
    ),
    "empty split": (
        [QUICKSTART, "--config.data.train_split=train[:0%]"],
        "The split 'train[:0%]' of 4000 examples is empty.",
    ),
    "no run in a path": (
        ["evaluate", "{tmp}/none"],
        "There is no file or folder {tmp}/none: name the workdir of a run, or a weight file.",
    ),
    "another model": (
        [QUICKSTART, "import_weights", "{tmp}/absent.pth", "--config.weights.sha256=beef"],
        "Errors in the config (1):\n  weights.sha256: 'beef' is not a sha256 of 64 hexadecimal "
        "digits.",
    ),
    "no weight file": (
        ["import_weights", "{tmp}/one/val/cat/0.jpg"],
        "{tmp}/one/val/cat/0.jpg is not a weight file of a known format (torch, npz, orbax, "
        "safetensors, flax, npy, caffe, onnx).",
    ),
    "cut weight file": (
        ["import_weights", "{tmp}/cut.pth"],
        "{tmp}/cut.pth is damaged: it is a zip archive without its end (File is not a zip file). "
        "Copy or download it again.",
    ),
    "hostile weight file": (
        ["import_weights", "{tmp}/hostile.pth"],
        "{tmp}/hostile.pth is refused: its pickle names 'os.system', which weights do not need. "
        "Save the arrays only, such as PyTorch's state_dict.",
    ),
    "weights of another model": (
        ["import_weights", "{tmp}/other.pth"],
        "{tmp}/other.pth does not fit the model torchvision:\n"
        "  missing: features.0.bias [2]\n"
        "  missing: features.3.weight [12, 2, 5, 5]\n"
        "  extra: head.bias [3]\n"
        "  different: features.0.weight is [2, 3, 9, 9], expected [2, 3, 11, 11]",
    ),
    "nothing to start from": (
        [QUICKSTART, "--config.train.init_from={tmp}/none"],
        "Errors in the config (1):\n  train.init_from: There is no file or folder {tmp}/none: name "
        "the workdir of a run, one of its checkpoints, or a weight file.",
    ),
    "no images in a folder": (
        ["predict", "{tmp}/other.pth", "{tmp}/empty"],
        "{tmp}/empty has no images: name an image, a folder or glob of images (such as .jpg, "
        ".png), or a .txt file with a path on each line.",
    ),
    "export to another ending": (
        ["export", "{tmp}/other.pth", "{tmp}/model.pt"],
        "{tmp}/model.pt ends in .pt: end it in one of .npz, .safetensors, .npy, .onnx, "
        ".stablehlo, or set --config.export.format.",
    ),
    "export to no ending": (
        ["export", "{tmp}/other.pth", "{tmp}/model"],
        "{tmp}/model has no ending: end it in one of .npz, .safetensors, .npy, .onnx, "
        ".stablehlo, or set --config.export.format.",
    ),
    "export to nothing": (
        ["export", "{tmp}/other.pth"],
        "Name a file that ends in one of .npz, .safetensors, .npy, .onnx, .stablehlo, or set "
        "--config.export.format.",
    ),
    "no run": (
        [QUICKSTART, "--workdir={tmp}/none", "--config.job=evaluate"],
        "There is no file or folder {tmp}/none: name the workdir of a run, or a weight file.",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_names_the_problem_and_the_fix(
    run_main: Callable[..., tuple[int, str, str]], tmp_path: Path, case: str
) -> None:
    args, message = MESSAGES[case]
    (tmp_path / "empty").mkdir()
    for split in ("train", "val"):
        (tmp_path / "one" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "one" / split / "cat" / "0.jpg")
    (tmp_path / "cut.pth").write_bytes(torch_archive.archive_of(OTHER)[:1000])
    for step in ("20", "100"):
        (tmp_path / "steps" / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "hostile.pth").write_bytes(torch_archive.archive(b"cos\nsystem\n", []))
    (tmp_path / "other.pth").write_bytes(torch_archive.archive_of(OTHER))
    args = [arg.replace("{tmp}", str(tmp_path)) for arg in args]
    if not any(arg.startswith("--workdir") for arg in args) and args[:1] != ["evaluate"]:
        args.append(f"--workdir={tmp_path}/run")
    code, _, errors = run_main(*args)
    assert (code, errors) == (
        EXIT_INPUT,
        "error: " + message.replace("{tmp}", str(tmp_path)) + "\n",
    )
    assert not (tmp_path / "run").exists()
