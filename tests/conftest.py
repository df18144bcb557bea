"""Four CPU devices for every test, one compilation cache per session, and shared small runs."""

import os

# Compiling takes most of the time of a test's small programs; child processes inherit this.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import dataclasses
import functools
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.pipeline import Batch
from alexnet_jax.data.source import ArraySource, RawExample
from alexnet_jax.experiment import Experiment
from alexnet_jax.models import AlexNet
from alexnet_jax.models.initializers import Initializer
from alexnet_jax.models.layers import (
    NUM_CLASSES,
    Activation,
    Conv,
    Dense,
    Dropout,
    LocalResponseNorm,
    ModelSpec,
    Pool,
)
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.prepare.inputs import Inputs, Row, from_rows
from alexnet_jax.training.state import TrainState

ROOT = Path(__file__).parents[1]

jax.config.update("jax_num_cpu_devices", 4)
jax.devices()  # fixes their number, whatever a config requests
flags.FLAGS.mark_as_parsed()  # Grain asks absl for its flags


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run_main(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the program in this process: words -> (exit code, standard output, standard error)."""
    from alexnet_jax.main import main

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


SHORT_QUICKSTART = (
    f"--config={ROOT}/configs/quickstart.py",
    "--config.augment.mean=channel",
    "--config.parallel.strategy=single",
    "--config.data.eval_split=val[:137]",
    "--config.train.batch_size=100",
    "--config.train.duration=4 steps",
    "--config.train.log_every=2 steps",
    "--config.train.evaluate_every=4 steps",
    "--config.checkpoint.every=3 steps",
    "--config.optimizer.rates.weights.schedule=dexp",
    "--config.optimizer.rates.weights.rate=0.01",
    "--config.optimizer.rates.weights.factor=250",
)


@pytest.fixture(scope="session")
def short_quickstart() -> tuple[str, ...]:
    """Returns the arguments of a run of four steps, compiled once per session."""
    return SHORT_QUICKSTART


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the workdir of that run, finished. Copy it before changing it."""
    from alexnet_jax.main import main

    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert main([*SHORT_QUICKSTART, f"--workdir={workdir}"]) == 0
    return workdir


# ---- A very small model with all that the paper's has: towers that communicate, LRN within them,
# ---- overlapping pooling, dropout; and a number of classes that two towers do not divide.

TINY_IMAGE_SIZE, TINY_CLASSES, TINY_BATCH, TINY_LOG_EVERY = 14, 7, 16, 4


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """Returns the spec of that model."""
    return ModelSpec(
        input_size=12,
        channels=1,
        layers=(
            Conv("conv1", 8, 5, padding=2, initializer=Initializer(std=0.1)),
            LocalResponseNorm("norm1", alpha=0.1, groups=2),
            Pool("pool1"),
            Activation(),
            Conv("conv2", 8, 3, padding=1, groups=2, initializer=Initializer(std=0.3, bias=0.1)),
            Activation(),
            Conv("conv3", 8, 3, padding=1, initializer=Initializer(std=0.2)),
            Activation(),
            Dense("fc4", 16, initializer=Initializer(std=0.1, bias=0.1)),
            Activation(),
            Dropout("drop4"),
            Dense("fc5", NUM_CLASSES, initializer=Initializer(std=0.3)),
        ),
    )


@pytest.fixture(scope="session")
def tiny_experiment(tiny_spec: ModelSpec) -> Callable[..., Experiment]:
    """Returns (strategy, devices, accumulate) -> the parts of a run of the tiny model.

    Its rates are of schedule "plateau", so that `state.plateau.scale` steers them.
    """

    @functools.cache
    def make(strategy: str = "single", devices: int = 1, accumulate: int = 1) -> Experiment:
        tree, mistakes = schema.merge(
            SCHEMA,
            {
                "model.name": "digits",
                "data.image_size": TINY_IMAGE_SIZE,
                "data.channels": 1,
                "augment.scale": 1 / 64,
                "train.batch_size": TINY_BATCH,
                "train.accumulate": accumulate,
                "train.duration": "40 steps",
                "train.log_every": f"{TINY_LOG_EVERY} steps",
                "optimizer.rates.weights.schedule": "plateau",
                "optimizer.rates.biases.schedule": "plateau",
                "parallel.strategy": strategy,
                "parallel.devices": devices,
            },
        )
        assert not mistakes, mistakes
        like_digits = Experiment.from_config(ConfigDict(tree), TINY_CLASSES, num_examples=100)
        return dataclasses.replace(
            like_digits,
            model=AlexNet(tiny_spec, TINY_CLASSES),
            augmentation=dataclasses.replace(like_digits.augmentation, crop_size=12),
        )

    return make


@pytest.fixture(scope="session")
def tiny_state(tiny_experiment: Callable[..., Experiment]) -> Callable[..., TrainState]:
    """Returns (strategy, devices) -> a new copy of the tiny run's state at step 0."""
    mean = np.random.default_rng(0).uniform(90, 150, (TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 1))
    statistics = {"mean": mean.astype(np.float32)}
    initial = tiny_experiment().initial_state(statistics)

    def place(strategy: str = "single", devices: int = 1) -> TrainState:
        abstract = tiny_experiment(strategy, devices).abstract_state()
        places = jax.tree.map(lambda array: array.sharding, abstract)
        return jax.device_put(jax.tree.map(jnp.copy, initial), places)

    return place


@pytest.fixture(scope="session")
def tiny_program(tiny_experiment: Callable[..., Experiment]) -> Callable[..., Any]:
    """Returns (strategy, devices, accumulate) -> the compiled step, one program per session."""

    @functools.cache
    def compiled(*place: Any) -> jax.stages.Compiled:
        experiment = tiny_experiment(*place)
        return experiment.compile_train_step(experiment.abstract_state())

    return compiled


@pytest.fixture(scope="session")
def tiny_step(tiny_experiment: Callable[..., Experiment], tiny_program: Any) -> Callable[..., Any]:
    """Returns (strategy, devices, accumulate) -> the tiny run's train step.

    It takes batches of numpy arrays, and donates the state.
    """

    def make(strategy: str = "single", devices: int = 1, accumulate: int = 1) -> Callable[..., Any]:
        mesh = tiny_experiment(strategy, devices).mesh
        step = one_at_a_time(tiny_program(strategy, devices, accumulate))
        return lambda state, batch: step(state, put_batch(batch, mesh))

    return make


@pytest.fixture(scope="session")
def tiny_batch() -> Callable[[int], Batch]:
    """Returns step -> the batch of that step, counted from 0."""

    def batch(step: int) -> Batch:
        rng = np.random.default_rng(step)
        shape = (TINY_BATCH, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 1)
        return Batch(
            images=rng.integers(0, 256, shape, np.uint8),
            labels=rng.integers(0, TINY_CLASSES, TINY_BATCH).astype(np.int32),
            mask=np.ones(TINY_BATCH, np.float32),
            stream_position=np.arange(step * TINY_BATCH, (step + 1) * TINY_BATCH, dtype=np.uint32),
        )

    return batch


# ---- Sources in memory.


@dataclasses.dataclass(eq=False)
class PartlyBroken(ArraySource):
    """A source some of whose images cannot be read."""

    broken: tuple[int, ...] = ()

    def read(self, indices: np.ndarray) -> list[RawExample]:
        return [
            example._replace(data=b"") if index in self.broken else example
            for index, example in zip(indices, super().read(indices), strict=True)
        ]


@pytest.fixture(scope="session")
def array_source() -> Callable[..., ArraySource]:
    """Returns (images, labels, number of classes, broken) -> a source in memory."""

    def make(
        images: np.ndarray,
        labels: np.ndarray | None = None,
        num_classes: int = 2,
        broken: tuple[int, ...] = (),
    ) -> ArraySource:
        labels = np.zeros(len(images), np.int32) if labels is None else labels
        table = classes.from_ids(map(str, range(num_classes)))
        fields = ("set", "split", table, images.shape[1:], labels, images)
        return PartlyBroken(*fields, broken=broken) if broken else ArraySource(*fields)

    return make


# ---- Small datasets to be prepared.

SIZES = ((40, 30), (30, 40), (24, 24), (50, 33))


def photograph(number: int) -> bytes:
    """Returns a smooth image as JPEG; every number gives another."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(coarse).resize(SIZES[number % 4], Image.Resampling.BICUBIC)
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture
def make_inputs(tmp_path: Path) -> Callable[..., Inputs]:
    """Returns (training images, validation images) -> inputs of three classes.

    Further arguments {name: bytes} replace files: 'train/0.jpg' and so on.
    """

    def make(train: int = 20, val: int = 4, **replaced: bytes) -> Inputs:
        root, rows, number = tmp_path / "images", {}, itertools.count()
        for split, count in (("train", train), ("val", val)):
            (root / split).mkdir(parents=True, exist_ok=True)
            rows[split] = [Row("", f"{split}/{i}.jpg", f"n{i % 3 + 1}") for i in range(count)]
            for row in rows[split]:
                content = photograph(next(number))
                (root / row.name).write_bytes(replaced.get(row.name, content))
        table = ClassTable(("n1", "n2", "n3"), ("one", "two", "three"))
        return from_rows(rows, table, root, (16, 16, 3))

    return make
