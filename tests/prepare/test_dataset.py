"""Preparing sets: what stands on disk, what a kill leaves, and what is refused."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.data.prepared import MANIFEST, UNFINISHED, statistics_file
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import lists, shards
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.finalize import Report
from alexnet_jax.prepare.inputs import UNLABELED, FilePart, Inputs
from alexnet_jax.prepare.shards import ImageFormat

ROOT = Path(__file__).parents[2]
JPEG = ImageFormat(size=16, channels=3, resize="crop", format="jpeg", quality=95)
RAW = ImageFormat(size=16, channels=3, resize="crop", format="raw", quality=95)

Make = Callable[..., Inputs]


def run(inputs: Inputs, root: Path, recipe: ImageFormat = JPEG, **changes: object) -> Report:
    options = {"shard_size": 6, "processes": 1, "max_unreadable": 0.0} | changes
    return prepare(inputs, recipe, root, **options)


def checksums(root: Path) -> dict[str, str]:
    """The contents of every file of a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def expected(inputs: Inputs, split: str, recipe: ImageFormat) -> dict[str, tuple[np.ndarray, int]]:
    """{name: (pixels before they are stored, label)}, a picture at a time."""
    resize = shards.RESIZERS[recipe.resize]
    found = {}
    for picture in inputs.splits[split]:
        data, label = picture.read()
        found[picture.name] = (resize(images.decode(data, recipe.channels), recipe.size), label)
    return found


class TestTfdsReadsIt:
    @pytest.mark.parametrize("resize", ["crop", "warp", "short_side"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_picture(
        self, make_inputs: Make, tmp_path: Path, resize: str, channels: int
    ) -> None:
        recipe = ImageFormat(64, channels, resize, "jpeg", 100)
        inputs = make_inputs()
        report = run(inputs, tmp_path / "set", recipe)
        assert report == Report({"train": 20, "val": 4}, [], [])
        builder = tfds.builder_from_directory(str(tmp_path / "set"))
        assert builder.info.features["label"].names == ["n1", "n2", "n3"]
        for split, count in (("train", 20), ("val", 4)):
            records = builder.as_data_source(split)
            assert len(records) == builder.info.splits[split].num_examples == count
            wanted = expected(inputs, split, recipe)
            for record in records:
                pixels, label = wanted.pop(record["file_name"].decode())
                assert record["label"] == label
                assert record["image"].shape == pixels.shape
                # JPEG loses a little even at its best; a shifted or swapped picture, far more
                assert np.abs(record["image"].astype(int) - pixels).mean() < 4
            assert not wanted

    def test_slices_and_sizes(self, make_inputs: Make, tmp_path: Path) -> None:
        run(make_inputs(), tmp_path / "set")
        builder = tfds.builder_from_directory(str(tmp_path / "set"))
        assert builder.info.splits["train"].shard_lengths == [5, 5, 5, 5]
        # Every stretch holds all classes
        labels = [record["label"] for record in builder.as_data_source("train[:25%]")]
        assert set(labels) == {0, 1, 2}
        stored = builder.as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
        total = sum(len(record["image"]) for record in stored)
        assert builder.info.splits["val"].num_bytes == total


class TestStatistics:
    @pytest.mark.parametrize("recipe", [JPEG, RAW, ImageFormat(16, 3, "short_side", "jpeg", 90)])
    def test_are_those_of_the_stored_pictures(
        self, make_inputs: Make, tmp_path: Path, recipe: ImageFormat
    ) -> None:
        inputs, root = make_inputs(), tmp_path / "set"
        run(inputs, root, recipe)
        if recipe.format == "raw":
            pixels = [pixels for pixels, _ in expected(inputs, "train", recipe).values()]
        else:
            records = tfds.builder_from_directory(str(root)).as_data_source("train")
            pixels = [images.resize_and_crop(record["image"], 16) for record in records]
        stack = np.stack(pixels).astype(np.float64)
        found = Statistics.load(statistics_file(root, "train"))
        np.testing.assert_allclose(found.mean, stack.mean(0), rtol=1e-6)
        covariance = np.cov(stack.reshape(-1, 3), rowvar=False, bias=True)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
        np.testing.assert_array_equal(found.class_counts, [7, 7, 6])


class TestShards:
    def test_do_not_depend_on_the_number_of_processes(
        self, make_inputs: Make, tmp_path: Path
    ) -> None:
        inputs = make_inputs()
        told: list[tuple[int, int]] = []
        run(inputs, tmp_path / "one", progress=lambda *at: told.append(at))
        assert told == [(done, 24) for done in range(1, 25)]
        run(inputs, tmp_path / "two", processes=2)
        assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
        names = [f"pictures-train.array_record-0000{i}-of-00004" for i in range(4)]
        names += ["pictures-val.array_record-00000-of-00001"]
        assert sorted(path.name for path in (tmp_path / "one").glob("*record*")) == names

    def test_a_set_that_stands_is_left_alone(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(), tmp_path / "set"
        first = run(inputs, root)
        times = {path: path.stat().st_mtime_ns for path in root.iterdir()}
        (root / UNFINISHED).mkdir()  # a kill just before the end leaves it
        assert run(inputs, root, processes=2, max_unreadable=0.5) == first
        assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == times


PROGRAM = """
import sys
from pathlib import Path
from typing import NamedTuple
from alexnet_jax.prepare import lists
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.shards import ImageFormat
if __name__ == "__main__":
    root = Path(sys.argv[1])
    inputs = lists.to_inputs(root, {"train": lists.read_rows(root / "train.txt")}, None)
    recipe = ImageFormat(64, 3, "crop", "jpeg", 95)
    prepare(inputs, recipe, Path(sys.argv[2]), shard_size=10, processes=2, max_unreadable=0)
"""


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    return [
        int(child)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_a_killed_run_is_taken_up_where_it_stopped(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    picture.save(tmp_path / "0.jpg", quality=95)
    (tmp_path / "train.txt").write_text("0.jpg 0\n0.jpg 1\n" * 100)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    notes = killed / UNFINISHED

    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), str(killed)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while len(list(notes.glob("*.npz"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    workers = children_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    while any(map(is_running, workers)):  # the test's time limit ends a wait for ever
        time.sleep(0.01)

    done = {path.stem: path.stat().st_mtime_ns for path in notes.glob("*.npz")}
    assert 2 <= len(done) < 20
    assert not (killed / MANIFEST).exists()
    assert not (killed / "dataset_info.json").exists()
    shard_of = {f"train-{i:05d}": killed / f"pictures-train.array_record-{i:05d}-of-00020"
                for i in range(20)}  # fmt: skip
    written = {name: shard_of[name].stat().st_mtime_ns for name in done}

    rows = {"train": lists.read_rows(tmp_path / "train.txt")}
    inputs = lists.to_inputs(tmp_path, rows, None)
    recipe = ImageFormat(64, 3, "crop", "jpeg", 95)
    run(inputs, killed, recipe, shard_size=10)
    assert {name: shard_of[name].stat().st_mtime_ns for name in done} == written
    run(inputs, whole, recipe, shard_size=10)
    assert checksums(killed) == checksums(whole)
    assert not notes.exists()


class TestUnreadable:
    BROKEN = {  # noqa: RUF012
        "train/1.jpg": b"",
        "train/7.jpg": b"no picture",
        "val/2.jpg": b"\xff\xd8\xff\xe0cut short",
    }

    def test_are_left_out_and_reported(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**self.BROKEN), tmp_path / "set"
        Path(inputs.splits["train"][9].path).unlink()
        report = run(inputs, root, max_unreadable=4 / 24)
        assert report.counts == {"train": 17, "val": 3}
        reasons = dict(report.unreadable)
        assert list(reasons) == ["train/1.jpg", "train/9.jpg", "train/7.jpg", "val/2.jpg"]
        assert reasons["train/1.jpg"] == "the file is empty"
        assert reasons["train/9.jpg"] == "No such file or directory"
        assert reasons["train/7.jpg"].startswith("not a picture in a known format")
        assert json.loads((root / "report.json").read_text())["unreadable"] == [
            list(problem) for problem in report.unreadable
        ]
        builder = tfds.builder_from_directory(str(root))
        names = {record["file_name"].decode() for record in builder.as_data_source("train")}
        assert names == {f"train/{i}.jpg" for i in range(20)} - set(reasons)

    def test_too_many_stop_the_job(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**self.BROKEN), tmp_path / "set"
        message = r"Unreadable pictures: 1, such as train/1\.jpg \(the file is empty\); (.*) li"
        with pytest.raises(InputError, match=message):
            run(inputs, root)
        assert not (root / MANIFEST).exists()
        listed = json.loads((root / UNFINISHED / "report.json").read_text())["unreadable"]
        assert listed == [["train/1.jpg", "the file is empty"]]
        # With more allowed it goes on from there; the shares of earlier runs count.
        with pytest.raises(InputError, match="Unreadable pictures: 3"):
            run(inputs, root, max_unreadable=2 / 24)
        assert run(inputs, root, max_unreadable=3 / 24).counts == {"train": 18, "val": 3}

    def test_absurd_sizes(self, make_inputs: Make, tmp_path: Path) -> None:
        line = np.zeros((1, 65_000, 3), np.uint8)
        huge = shards.encode_jpeg(np.zeros((10_000, 9_000, 1), np.uint8), 10)
        inputs = make_inputs(**{"train/0.jpg": shards.encode_jpeg(line, 90), "train/1.jpg": huge})
        recipe = ImageFormat(16, 3, "short_side", "jpeg", 95)
        reasons = dict(run(inputs, tmp_path / "set", recipe, max_unreadable=0.5).unreadable)
        assert reasons["train/0.jpg"].startswith("65000 x 1 pixels would become 1040000 x 16")
        assert "9000 x 10000 pixels are above the limit" in reasons["train/1.jpg"]

    def test_a_split_of_nothing_else(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(val=1, **{"val/0.jpg": b"no picture"})
        with pytest.raises(InputError, match="Not one picture of the split 'val' can be read"):
            run(inputs, tmp_path / "set", max_unreadable=1)
        assert not (tmp_path / "set" / MANIFEST).exists()


class TestWarnings:
    def test_duplicates_across_splits(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(train=12, val=5)
        train, val = ([Path(p.path) for p in inputs.splits[name]] for name in ("train", "val"))
        val[3].write_bytes(train[7].read_bytes())
        val[1].write_bytes(b"broken")
        report = run(inputs, tmp_path / "set", max_unreadable=0.5)
        assert report.warnings == [
            "The splits 'train' and 'val' share 1 of their pictures, such as val/3.jpg."
        ]

    def test_classes(self, make_inputs: Make, tmp_path: Path) -> None:
        report = run(make_inputs(train=3, val=2), tmp_path / "set")
        assert report.warnings == [
            "The split 'val' has no pictures of 1 of the 3 classes, such as 'n3'."
        ]
        inputs = make_inputs(train=1, val=1)
        one = inputs.classes._replace(ids=("n1",), labels=("one",))
        report = run(Inputs(one, inputs.splits), tmp_path / "one")
        assert report.warnings == ["The set has one class, 'n1': there is nothing to tell apart."]

    def test_a_split_without_labels_is_counted_and_told(
        self, make_inputs: Make, tmp_path: Path
    ) -> None:
        inputs = make_inputs(train=6, val=3)
        bare = [FilePart(picture.name, UNLABELED, picture.path) for picture in inputs.splits["val"]]
        report = run(Inputs(inputs.classes, {**inputs.splits, "val": bare}), tmp_path / "set")
        assert report.counts == {"train": 6, "val": 3}
        assert report.warnings == [
            "The split 'val' has no labels: nothing can be trained or evaluated on it."
        ]


class Deadly(NamedTuple):
    """A picture that takes its reader with it, as one too large for the memory does."""

    name: str
    path: str

    def read(self) -> tuple[bytes, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class TestRefusals:
    def test_a_worker_that_dies(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs()
        splits = {"train": [*inputs.splits["train"], Deadly("last", "none")]}
        message = "A process that prepared pictures was killed, perhaps for want of memory: set"
        with pytest.raises(InputError, match=message):
            run(inputs._replace(splits=splits), tmp_path / "set", processes=2)
        assert not (tmp_path / "set" / MANIFEST).exists()

    def test_changed_inputs_and_settings(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**{"train/1.jpg": b""}), tmp_path / "set"
        with pytest.raises(InputError, match="Unreadable"):
            run(inputs, root)
        half = "holds an unfinished set made with other"
        with pytest.raises(InputError, match=f"{half} quality: delete it, or set another --conf"):
            run(inputs, root, ImageFormat(16, 3, "crop", "jpeg", 94), max_unreadable=1)
        Path(inputs.splits["val"][0].path).write_bytes(b"changed")
        with pytest.raises(InputError, match=f"{half} shard_size, inputs: delete"):
            run(inputs, root, shard_size=5, max_unreadable=1)
        run(inputs, tmp_path / "other", max_unreadable=1)
        Path(inputs.splits["val"][0].path).write_bytes(b"changed again")
        with pytest.raises(InputError, match="other holds a set made with other inputs"):
            run(inputs, tmp_path / "other", max_unreadable=1)

    def test_a_folder_of_other_things(self, make_inputs: Make, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"pictures holds other files: set --config\.prep"):
            run(make_inputs(), tmp_path / "pictures")
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"file cannot be written \((File exists|Not a dir)"):
            run(make_inputs(), tmp_path / "file")

    def test_two_at_once(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(), tmp_path / "set"

        def progress(done: int, total: int) -> None:
            with pytest.raises(InputError, match=r"Another process is preparing .*: wait for it"):
                run(inputs, root)

        run(inputs, root, progress=progress)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
    @pytest.mark.parametrize("recipe", [JPEG, RAW])
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_full_disk(
        self, make_inputs: Make, tmp_path: Path, recipe: ImageFormat, processes: int
    ) -> None:
        inputs, root = make_inputs(train=80, **{"train/0.jpg": b""}), tmp_path / "set"
        with pytest.raises(InputError, match="Unreadable"):
            run(inputs, root, recipe, shard_size=40)
        (root / UNFINISHED / "train-00001.data").symlink_to("/dev/full")
        message = r"set cannot be written \(.*No space left on device\): make room or take another"
        with pytest.raises(InputError, match=message):
            run(inputs, root, recipe, shard_size=40, max_unreadable=1, processes=processes)
        assert not (root / MANIFEST).exists()
        assert not [path for path in root.iterdir() if "00001-of-00002" in path.name]
        report = run(inputs, root, recipe, shard_size=40, max_unreadable=1)  # room was made
        assert report.counts == {"train": 79, "val": 4}

    def test_raw_pictures_that_cannot_fit(self, make_inputs: Make, tmp_path: Path) -> None:
        recipe = ImageFormat(2_000_000, 3, "crop", "raw", 95)  # 12 TB a picture
        with pytest.raises(InputError, match=r"GB free, and raw pictures need 288000\.0 GB"):
            run(make_inputs(), tmp_path / "set", recipe)
