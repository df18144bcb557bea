"""Checkpoints: the same bits back, on any mesh, and nothing damaged is ever accepted."""

import contextlib
import dataclasses
import gc
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet
from alexnet_jax.training.checkpoint import FORMAT, Checkpoints, DamagedError
from alexnet_jax.training.state import TrainState

STRATEGIES = [("single", 1), ("data", 4), ("tower", 2), ("tower", 4), ("hybrid", 4), ("stage", 2)]
SAVED_BY = [
    case if case in (("tower", 4), ("stage", 2)) else pytest.param(case, marks=pytest.mark.slow)
    for case in STRATEGIES
]
METADATA = {"config": {"name": "tiny"}, "class_names": ["a", "b"], "elapsed_seconds": 12.5}


@contextlib.contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(folder, **options)
    yield checkpoints
    checkpoints.close()


def save(checkpoints: Checkpoints, *arguments: Any) -> None:
    """Saves and waits until it is on disk."""
    checkpoints.save(*arguments)
    checkpoints.verify(wait=True)


def at_step(state: TrainState, step: int) -> TrainState:
    """The state with a step of its own, and values that differ from step to step."""
    params = jax.tree.map(
        lambda array: jax.device_put(np.asarray(array) + np.float32(step), array.sharding),
        state.params,
    )
    number = jax.device_put(jnp.int32(step), state.step.sharding)
    return dataclasses.replace(state, step=number, params=params)


def bits(state: TrainState) -> dict[str, tuple[Any, ...]]:
    """Every array's type, shape and bytes, typed keys included."""
    found = {}
    for path, array in jax.tree_util.tree_leaves_with_path(state):
        kind = str(array.dtype)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        found[jax.tree_util.keystr(path)] = (kind, array.shape, np.asarray(array).tobytes())
    return found


@pytest.fixture(scope="module")
def abstract(tiny_experiment: Any) -> Callable[..., TrainState]:
    def make(strategy: str = "single", devices: int = 1) -> TrainState:
        return tiny_experiment(strategy, devices).abstract_state()

    return make


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_state: Any) -> Path:
    """A folder with the checkpoints of steps 1 and 2. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with opened(folder, keep=2) as checkpoints:
        for step in (1, 2):
            save(checkpoints, at_step(tiny_state(), step), METADATA, None)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


# ---- The same bits


def test_a_round_trip_is_exact(saved: Path, abstract: Any, tiny_state: Any) -> None:
    with opened(saved, read_only=True) as checkpoints:
        found = checkpoints.restore(2, abstract())
        metadata = checkpoints.metadata(2)
    assert bits(found) == bits(at_step(tiny_state(), 2))
    assert jnp.issubdtype(found.key.dtype, jax.dtypes.prng_key)
    assert {name: metadata[name] for name in METADATA} == METADATA
    assert (metadata["format"], metadata["arrays"]["params/conv1/bias"]) == (FORMAT, "float32[8]")
    assert metadata["versions"].keys() == {"alexnet_jax", "jax", "flax", "optax"}


@pytest.mark.parametrize("strategy", SAVED_BY, ids=str)
def test_any_strategy_restores_what_any_saved(
    strategy: tuple[str, int], tmp_path: Path, abstract: Any, tiny_state: Any
) -> None:
    state = at_step(tiny_state(*strategy), 1)
    with opened(tmp_path) as checkpoints:
        save(checkpoints, state, METADATA, None)
        for other in STRATEGIES:
            found = checkpoints.restore(1, abstract(*other))
            assert bits(found) == bits(state), other
            for array, wanted in zip(
                jax.tree.leaves(found), jax.tree.leaves(abstract(*other)), strict=True
            ):
                assert array.sharding.is_equivalent_to(wanted.sharding, array.ndim), other


def test_a_state_may_be_donated_while_it_is_saved(
    tmp_path: Path, abstract: Any, tiny_state: Any, tiny_step: Any, tiny_batch: Any
) -> None:
    step, state = tiny_step(), tiny_state()
    with opened(tmp_path, keep=5) as checkpoints:
        expected = {}
        for number in range(3):
            state, _ = step(state, tiny_batch(number))
            expected[number + 1] = bits(state)
            checkpoints.save(state, METADATA, None)
        del state
        checkpoints.close()
    with opened(tmp_path, read_only=True) as checkpoints:
        for number, state_bits in expected.items():
            assert bits(checkpoints.restore(number, abstract())) == state_bits


def test_a_part_of_a_state_is_used_but_not_resumed_from(
    tmp_path: Path, abstract: Any, tiny_state: Any
) -> None:
    params = jax.device_get(tiny_state().params)
    with opened(tmp_path) as checkpoints:
        save(checkpoints, {"step": np.int32(0), "params": params}, METADATA, None)
        assert checkpoints.find("best") == checkpoints.find("latest") == 0
        found = checkpoints.restore_part(0, {"params": abstract().params})
        jax.tree.map(np.testing.assert_array_equal, found, {"params": params})
        with pytest.raises(InputError, match="opt_state"):
            checkpoints.restore(0, abstract())


# ---- Which are kept and found


def test_the_newest_and_the_best_are_kept(tmp_path: Path, tiny_state: Any) -> None:
    accuracies = {1: 0.1, 2: 0.9, 3: None, 4: 0.2, 5: None, 6: 0.3}
    with opened(tmp_path, keep=2, keep_best=1) as checkpoints:
        for step, top1 in accuracies.items():
            save(checkpoints, at_step(tiny_state(), step), METADATA, top1)
        assert checkpoints.steps() == [2, 5, 6]
    with opened(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6]
        assert [checkpoints.find(which) for which in ("best", "latest", "5")] == [2, 6, 5]
        with pytest.raises(InputError, match=r"no checkpoint 4 in .*, only 2, 5, 6\."):
            checkpoints.find("4")


def test_of_equal_accuracies_the_earliest_is_the_best(tmp_path: Path, tiny_state: Any) -> None:
    with opened(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, at_step(tiny_state(), step), METADATA, 0.5)
        assert checkpoints.find("best") == 1


def test_a_damaged_later_checkpoint_does_not_push_out_a_new_one(
    folder: Path, abstract: Any, tiny_state: Any
) -> None:
    """The run resumed from step 1, since step 2 is damaged, and now saves a step before that."""
    (folder / "2").rename(folder / "4")
    (folder / "4" / "metadata" / "metadata").write_text("{}")
    with opened(folder, keep=1) as checkpoints:
        save(checkpoints, at_step(tiny_state(), 3), METADATA, None)
        assert checkpoints.steps() == [3, 4]
        assert bits(checkpoints.restore_newest(abstract())) == bits(at_step(tiny_state(), 3))


def test_a_checkpoint_that_cannot_be_read_back_is_an_error(tmp_path: Path, tiny_state: Any) -> None:
    with opened(tmp_path) as checkpoints:
        checkpoints.save(at_step(tiny_state(), 1), METADATA, None)
        while not (tmp_path / "1").exists():
            time.sleep(0.01)
        flip(largest(tmp_path / "1"), 0.5)
        with pytest.raises(InputError, match=f"{tmp_path}/1"):
            checkpoints.verify()


def test_without_an_evaluation_the_latest_is_the_best(saved: Path) -> None:
    with opened(saved, read_only=True) as checkpoints:
        assert checkpoints.find("best") == 2


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path, abstract: Any) -> None:
    with opened(tmp_path / "new") as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.restore_newest(abstract()) is None
        for which in ("best", "latest", "3"):
            with pytest.raises(InputError, match="no checkpoint in"):
                checkpoints.find(which)


# ---- Damage


@pytest.fixture
def _swept() -> Iterator[None]:
    """Where a read fails, Orbax leaves tasks behind; collecting them reports errors."""
    yield
    gc.collect()


def reads_damage(test: Callable[..., None]) -> Callable[..., None]:
    quiet = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return pytest.mark.usefixtures("_swept")(quiet(test))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path: Path, position: float) -> None:
    """Flips one bit of a file, `position` being 0 at its start and 1 at its end."""
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 4
    path.write_bytes(data)


@reads_damage
@pytest.mark.parametrize(
    "position", [0.0, 0.6, *(pytest.param(rest, marks=pytest.mark.slow) for rest in (0.3, 1.0))]
)
def test_a_flipped_bit_anywhere_never_gives_another_state(
    position: float, saved: Path, tmp_path: Path, abstract: Any, tiny_state: Any
) -> None:
    """In every file in turn: it is either found, or changes neither state nor metadata."""
    expected = bits(at_step(tiny_state(), 2))
    with opened(saved, read_only=True) as checkpoints:
        expected_metadata = checkpoints.metadata(2)
    found = 0
    for number, path in enumerate(files(saved / "2")):
        copy = Path(shutil.copytree(saved, tmp_path / str(number)))
        flip(copy / path.relative_to(saved), position)
        with opened(copy, read_only=True) as checkpoints:
            try:
                state, metadata = checkpoints.restore(2, abstract()), checkpoints.metadata(2)
            except InputError:
                found += 1
                continue
        assert bits(state) == expected, path
        assert metadata == expected_metadata, path
    assert found >= 2  # at least the arrays' and the metadata's


def largest(folder: Path) -> Path:
    """The file with the arrays."""
    return max(files(folder / "state"), key=lambda path: path.stat().st_size)


@reads_damage
def test_damaged_arrays_are_refused(folder: Path, abstract: Any) -> None:
    flip(largest(folder / "2"), 0.5)
    with opened(folder, read_only=True) as checkpoints, pytest.raises(DamagedError, match="/2"):
        checkpoints.restore(2, abstract())


@reads_damage
def test_arrays_other_than_those_saved_are_refused(folder: Path, abstract: Any) -> None:
    """Complete files of another step: only the checksums can detect them."""
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    with (
        opened(folder, read_only=True) as checkpoints,
        pytest.raises(DamagedError, match="params/conv1/kernel"),
    ):
        checkpoints.restore(2, abstract())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped bit": lambda step: flip(largest(step), 0.5),
    "cut short": lambda step: largest(step).write_bytes(largest(step).read_bytes()[:2000]),
    "lost file": lambda step: largest(step).unlink(),
    "lost metadata": lambda step: shutil.rmtree(step / "metadata"),
    "metadata cut short": lambda step: (step / "metadata" / "metadata").write_text('{"form'),
    "flipped bit in the metadata": lambda step: flip(step / "metadata" / "metadata", 0.5),
}


@reads_damage
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_the_one_before_a_damaged_one_is_taken(
    damage: Callable[[Path], None],
    folder: Path,
    abstract: Any,
    tiny_state: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(folder / "2")
    with opened(folder, keep=2) as checkpoints:
        found = checkpoints.restore_newest(abstract())
        assert found is not None
        assert bits(found) == bits(at_step(tiny_state(), 1))
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        (warning,) = (text for text in warnings if "Trying the one before it" in text)
        assert str(folder / "2") in warning
        assert len(warning) < len(str(folder)) + 300
        again = at_step(tiny_state(), 2)  # the run reaches the step again
        save(checkpoints, again, METADATA, None)
        assert bits(checkpoints.restore(2, abstract())) == bits(again)


def test_metadata_with_a_bit_flipped_anywhere_is_damaged(folder: Path) -> None:
    """Including its class names and its config, which no checksum of an array covers."""
    path = folder / "2" / "metadata" / "metadata"
    data = path.read_bytes()
    with opened(folder, read_only=True) as checkpoints:
        for index in range(0, len(data), 11):
            flipped = data[index] ^ (1, 4, 32)[index % 3]
            path.write_bytes(data[:index] + bytes([flipped]) + data[index + 1 :])
            with pytest.raises(DamagedError):
                checkpoints.metadata(2)


@reads_damage
def test_a_folder_with_damaged_checkpoints_only_is_refused(folder: Path, abstract: Any) -> None:
    for step in ("1", "2"):
        flip(largest(folder / step), 0.5)
    with opened(folder) as checkpoints, pytest.raises(DamagedError, match=str(folder)):
        checkpoints.restore_newest(abstract())


@pytest.mark.parametrize("read_only", [True, False])
def test_a_half_written_checkpoint_is_never_chosen(
    read_only: bool, folder: Path, abstract: Any
) -> None:
    """What a kill while saving leaves: a folder under its temporary name."""
    partial = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", partial)
    largest(partial).unlink()
    with opened(folder, read_only=read_only) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.find("latest") == 2
        state = checkpoints.restore_newest(abstract())
        assert state is not None
        assert int(state.step) == 2


# ---- Another model, another version


def test_the_arrays_that_differ_from_another_model_are_named(
    saved: Path, tiny_experiment: Any, tiny_state: Any
) -> None:
    experiment = tiny_experiment()
    wider = dataclasses.replace(experiment, model=AlexNet(experiment.model.spec, 9))
    with opened(saved, read_only=True) as checkpoints, pytest.raises(InputError) as caught:
        checkpoints.restore(2, wider.abstract_state())
    assert not isinstance(caught.value, DamagedError)
    message = str(caught.value)
    assert "does not fit this config" in message
    assert "params/fc5/kernel: float32[16,7] there, float32[16,9] here" in message
    assert "params/fc5/bias: float32[7] there, float32[9] here" in message
    assert "conv1" not in message


def test_the_checkpoint_of_another_model_is_not_skipped(
    saved: Path, tiny_experiment: Any, tiny_state: Any
) -> None:
    experiment = tiny_experiment()
    wider = dataclasses.replace(experiment, model=AlexNet(experiment.model.spec, 9))
    with opened(saved, read_only=True) as checkpoints, pytest.raises(InputError):
        checkpoints.restore_newest(wider.abstract_state())


def test_a_later_format_is_refused(
    tmp_path: Path, abstract: Any, tiny_state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as checkpoints:
        monkeypatch.setattr("alexnet_jax.training.checkpoint.FORMAT", FORMAT + 1)
        save(checkpoints, at_step(tiny_state(), 1), METADATA, None)
        monkeypatch.undo()
        with pytest.raises(InputError, match=f"format {FORMAT + 1}"):
            checkpoints.restore(1, abstract())


def test_the_metadata_is_json(saved: Path) -> None:
    metadata = json.loads((saved / "2" / "metadata" / "metadata").read_text())
    assert metadata["class_names"] == ["a", "b"]
