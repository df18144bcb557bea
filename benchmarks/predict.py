"""Speed of the jobs predict and features next to evaluate, and the time to the first answer.

    python -m benchmarks.predict
    python -m benchmarks.predict --root=DIR      your own images, any folder of JPEGs

The paper's model, untrained, reads 1,000 JPEGs of 500 x 375, crops of the photographs that come
with scikit-learn and matplotlib. The three jobs run interleaved in several rounds, each as its
command does; a rate is that of all batches after the first, which waits for the compiler. Ratios to
evaluate are of the same round, in elapsed time and in CPU time, which other programs on the machine
hardly change; medians are reported. The first answer is what `predict` prints for one image,
measured from the start of the command, with compiled programs in the cache and without; its CPU
time is that of the whole command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
from rich.console import Console

import benchmarks
from alexnet_jax.jobs import evaluate, features, predict, train
from alexnet_jax.runtime import devices, huge_pages
from alexnet_jax.runtime.progress import Progress
from benchmarks.input_pipeline import photographs

BATCH, CLASSES, TRAINING_IMAGES = 128, 10, 32
JOBS: dict[str, ModuleType] = {"evaluate": evaluate, "predict": predict, "features": features}


def make_dataset(top: Path, images: list[Path]) -> Path:
    """Links images as a folder dataset: all for validation, a few for training."""
    for split, chosen in (("val", images), ("train", images[:TRAINING_IMAGES])):
        for number, path in enumerate(chosen):
            folder = top / split / f"class {number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").symlink_to(path.resolve())
    return top


def make_run(root: Path, workdir: Path) -> None:
    """Trains the paper's model for one step."""
    keys = (
        "data.source=folder",
        f"data.root={root}",
        "data.eval_split=val[:10]",
        "train.batch_size=32",
        "train.duration=1 step",
        "augment.draw_first_batch=False",
    )
    args = ["--config=configs/paper.py", f"--workdir={workdir}"]
    command = benchmarks.parse([*args, *(f"--config.{key}" for key in keys)])
    train.run(command, Console(quiet=True))


def rate(job: str, root: Path, workdir: Path) -> np.ndarray:
    """Runs a job on all images; returns images per second, of elapsed and of CPU time."""
    args = [job, str(workdir), *([str(root / "val")] if job == "predict" else [])]
    section = "evaluation" if job == "evaluate" else job
    keys = ("data.eval_split=val", f"{section}.batch_size={BATCH}")
    command = benchmarks.parse([*args, *(f"--config.{key}" for key in keys)])
    times: list[tuple[float, float]] = []

    class Timed(Progress):
        def advance(self, done: int, total: int | None = None) -> None:
            times.append((time.perf_counter(), time.process_time()))
            super().advance(done, total)

    with mock.patch.object(JOBS[job], "Progress", Timed):
        JOBS[job].run(command, Console(quiet=True))
    count = sum(1 for _ in (root / "val").rglob("*.jpg"))
    rates: np.ndarray = (count - BATCH) / np.subtract(times[-1], times[0])
    return rates


def first_answer(workdir: Path, image: Path) -> tuple[float, float]:
    """Returns the seconds from the start of `predict` to its answer, and those of CPU time."""
    args = [sys.executable, "-m", "alexnet_jax.main", "predict", str(workdir), str(image)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(workdir.parent / "cache")}
    start, before = time.perf_counter(), sum(os.times()[2:4])
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        answered = [time.perf_counter() - start for line in process.stdout if image.name in line]
    return answered[0], sum(os.times()[2:4]) - before


def results(rounds: dict[str, list[np.ndarray]]) -> dict[str, float]:
    """Returns the medians of rates, and of ratios to evaluate in the same round."""
    found = {}
    for job, rates in rounds.items():
        found[f"{job}_images_per_second"] = np.median(rates, axis=0)[0]
        ratios = np.median(np.divide(rates, rounds["evaluate"]), axis=0)
        if job != "evaluate":
            found |= {f"{job}_ratio": ratios[0], f"{job}_cpu_ratio": ratios[1]}
    return {name: round(float(value), 3) for name, value in found.items()}


def main() -> None:
    """Measures; prints one line of JSON at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of JPEGs")
    parser.add_argument("--images", type=int, default=1000, help="number of images")
    parser.add_argument("--rounds", type=int, default=3, help="of all jobs")
    options = parser.parse_args()
    devices.set_up(cpu_devices=None, use_cache=True)
    rounds: dict[str, list[np.ndarray]] = {job: [] for job in JOBS}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        if options.root:
            images = sorted(options.root.rglob("*.jpg"))[: options.images]
        else:
            (top / "photographs").mkdir()
            images = photographs(top / "photographs", options.images)
        root, workdir = make_dataset(top / "data", images), top / "run"
        make_run(root, workdir)
        for _ in range(options.rounds):
            for job, rates in rounds.items():
                rates.append(rate(job, root, workdir))
            print({job: rates[-1].round(1).tolist() for job, rates in rounds.items()}, flush=True)
        cold, *warm = (first_answer(workdir, images[0]) for _ in range(1 + options.rounds))
    elapsed, cpu = np.median(warm, axis=0).round(2).tolist()
    answer = {
        "first_answer_seconds": elapsed,
        "first_answer_cpu_seconds": cpu,
        "first_answer_seconds_cold": round(cold[0], 2),
    }
    print(json.dumps(answer | results(rounds)))


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()  # as the program does
    main()
