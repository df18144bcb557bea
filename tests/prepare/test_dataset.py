"""Preparing datasets: what is on disk, what a kill leaves, and what is refused."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from options import data_options
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.prepared import MANIFEST, UNFINISHED, statistics_file
from alexnet_jax.data.source import open_source
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.dataset import REPORT, Report, prepare
from alexnet_jax.prepare.inputs import UNLABELED, InputOptions, Inputs, name_of, open_inputs
from alexnet_jax.prepare.shards import ImageFormat, PrepareOptions

ROOT = Path(__file__).parents[2]
JPEG = ImageFormat(size=16, channels=3, resize="crop", format="jpeg", quality=95)
RAW = ImageFormat(size=16, channels=3, resize="crop", format="raw", quality=95)

Make = Callable[..., Inputs]


def run(
    inputs: Inputs,
    root: Path,
    image_format: ImageFormat = JPEG,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **changes: object,
) -> Report:
    keys = {"shard_size": 6, "processes": 1, "max_unreadable": 0.0} | changes
    return prepare(inputs, PrepareOptions(image_format, root, **keys, progress=progress))


def checksums(root: Path) -> dict[str, str]:
    """The contents of every file of a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def expected(
    inputs: Inputs, split: str, image_format: ImageFormat
) -> dict[str, tuple[np.ndarray, int]]:
    """{name: (pixels before they are stored, label)}, one image at a time."""
    resize = images.PREPARED_RESIZERS[image_format.resize]
    found = {}
    for index, (data, label) in enumerate(inputs[split].read(np.arange(len(inputs[split])))):
        pixels = resize(images.decode(data, image_format.channels), image_format.size)
        found[name_of(inputs[split], index)] = (pixels, label)
    return found


def path_of(inputs: Inputs, split: str, index: int) -> Path:
    return Path(os.fsdecode(inputs[split].path(index)))


class TestReadByTfds:
    @pytest.mark.parametrize("resize", images.PREPARED_RESIZERS)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_image(
        self, make_inputs: Make, tmp_path: Path, resize: str, channels: int
    ) -> None:
        image_format = ImageFormat(64, channels, resize, "jpeg", 100)
        inputs = make_inputs()
        report = run(inputs, tmp_path / "set", image_format)
        assert report == Report({"train": 20, "val": 4}, [], [])
        builder = tfds.builder_from_directory(str(tmp_path / "set"))
        assert builder.info.features["label"].names == ["n1", "n2", "n3"]
        for split, count in (("train", 20), ("val", 4)):
            records = builder.as_data_source(split)
            assert len(records) == builder.info.splits[split].num_examples == count
            wanted = expected(inputs, split, image_format)
            for record in records:
                pixels, label = wanted.pop(record["file_name"].decode())
                assert record["label"] == label
                assert record["image"].shape == pixels.shape
                # JPEG loses a little even at its best; a shifted or swapped image, far more
                assert np.abs(record["image"].astype(int) - pixels).mean() < 4
            assert not wanted

    def test_slices_and_sizes(self, make_inputs: Make, tmp_path: Path) -> None:
        run(make_inputs(), tmp_path / "set")
        builder = tfds.builder_from_directory(str(tmp_path / "set"))
        assert builder.info.splits["train"].shard_lengths == [5, 5, 5, 5]
        # Every shard has all classes
        labels = [record["label"] for record in builder.as_data_source("train[:25%]")]
        assert set(labels) == {0, 1, 2}
        stored = builder.as_data_source("val", decoders={"image": tfds.decode.SkipDecoding()})
        total = sum(len(record["image"]) for record in stored)
        assert builder.info.splits["val"].num_bytes == total


@pytest.mark.parametrize("kind", ["digits", "parquet", "prepared"])
def test_any_source_can_be_prepared(make_inputs: Make, tmp_path: Path, kind: str) -> None:
    root, output = tmp_path / "source", tmp_path / "output"
    files = make_inputs(train=40)
    if kind == "prepared":
        run(files, root, ImageFormat(32, 1, "short_side", "jpeg", 95))
    elif kind == "parquet":
        examples = files["train"].read(np.arange(40))
        images = [{"bytes": data, "path": None} for data, _ in examples]
        table = pa.table({"image": images, "label": [label for _, label in examples]})
        (root / "data").mkdir(parents=True)
        pq.write_table(table, root / "data" / "train-00000-of-00001.parquet", row_group_size=7)
    data = data_options(kind, root, image_size=24, channels=1)
    splits = ("train=train[:20]", "val=train[20:33]")
    inputs = open_inputs(InputOptions(data, splits, None, (), ""))
    run(inputs, output, ImageFormat(24, 1, "crop", "raw", 95))
    for split, count in (("train", 20), ("val", 13)):
        wanted = inputs[split].load(np.arange(count))
        data = data_options("prepared", output, image_size=24, channels=1)
        source = open_source(data, split)
        assert source.class_names == inputs[split].class_names
        for found, expected_array in zip(source.load(np.arange(count)), wanted, strict=True):
            np.testing.assert_array_equal(found, expected_array)


class TestStatistics:
    @pytest.mark.parametrize(
        "image_format", [JPEG, RAW, ImageFormat(16, 3, "short_side", "jpeg", 90)]
    )
    def test_are_those_of_the_stored_images(
        self, make_inputs: Make, tmp_path: Path, image_format: ImageFormat
    ) -> None:
        inputs, root = make_inputs(), tmp_path / "set"
        run(inputs, root, image_format)
        if image_format.format == "raw":
            pixels = [pixels for pixels, _ in expected(inputs, "train", image_format).values()]
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
        shown: list[tuple[int, int]] = []
        run(inputs, tmp_path / "one", progress=lambda *at: shown.append(at))
        assert shown == [(done, 24) for done in range(1, 25)]
        run(inputs, tmp_path / "two", processes=2)
        assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
        names = [f"images-train.array_record-0000{i}-of-00004" for i in range(4)]
        names += ["images-val.array_record-00000-of-00001"]
        assert sorted(path.name for path in (tmp_path / "one").glob("*record*")) == names

    def test_a_complete_dataset_is_left_alone(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(), tmp_path / "set"
        first = run(inputs, root)
        times = {path: path.stat().st_mtime_ns for path in root.iterdir()}
        (root / UNFINISHED).mkdir()  # a kill just before the end leaves it
        assert run(inputs, root, processes=2, max_unreadable=0.5) == first
        assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == times


class Killed(BaseException):
    """Interrupts a preparation like a signal: no handler catches it."""


@pytest.mark.parametrize("after", [1, 7, 24])
def test_resumes_where_it_was_interrupted(
    make_inputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    inputs, root = make_inputs(), tmp_path / "set"

    def interrupt(done: int, total: int) -> None:
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        run(inputs, root, progress=interrupt)
    complete = len(list((root / UNFINISHED).glob("*.npz")))
    assert complete == (after - 1) // 5
    save = Report.save

    def interrupt_last(report: Report, path: Path) -> None:
        save(report, path)
        raise Killed

    with monkeypatch.context() as patch:  # and again, just before the manifest
        patch.setattr(Report, "save", interrupt_last)
        with pytest.raises(Killed):
            run(inputs, root)
    assert (root / REPORT).exists()
    assert not (root / MANIFEST).exists()
    resumed: list[tuple[int, int]] = []
    run(inputs, root, progress=lambda *at: resumed.append(at))
    assert not resumed
    run(inputs, tmp_path / "whole")
    assert checksums(root) == checksums(tmp_path / "whole")


PROGRAM = """
import sys
from pathlib import Path
from alexnet_jax.data.source import DataOptions
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.inputs import InputOptions, open_inputs
from alexnet_jax.prepare.shards import ImageFormat, PrepareOptions
if __name__ == "__main__":
    data, output = eval(sys.argv[1]), sys.argv[2]
    inputs = open_inputs(InputOptions(data, ("train=train.txt",), None, (), ""))
    image_format = ImageFormat(64, 3, "crop", "jpeg", 95)
    prepare(inputs, PrepareOptions(image_format, Path(output), 10, 2, 0.0))
"""


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(child) for child in children.split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_resumes_after_a_kill_of_all_processes(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    image.save(tmp_path / "0.jpg", quality=95)
    (tmp_path / "train.txt").write_text("0.jpg 0\n0.jpg 1\n" * 100)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, str(program), repr(data_options("list", tmp_path))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    process = subprocess.Popen([*command, str(killed)], env=environment)
    while len(list((killed / UNFINISHED).glob("*.npz"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    workers = children_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    while any(map(is_running, workers)):  # the test's time limit ends an endless wait
        time.sleep(0.01)

    def shards_of(root: Path, names: Iterable[str]) -> dict[str, int]:
        paths = [root / f"images-{name.replace('-', '.array_record-')}-of-00020" for name in names]
        return {path.name: path.stat().st_mtime_ns for path in paths}

    complete = [path.stem for path in (killed / UNFINISHED).glob("*.npz")]
    assert 2 <= len(complete) < 20
    assert not (killed / MANIFEST).exists()
    assert not (killed / "dataset_info.json").exists()
    written = shards_of(killed, complete)
    for root in (killed, whole):
        subprocess.run([*command, str(root)], env=environment, check=True)
    assert shards_of(killed, complete) == written
    assert checksums(killed) == checksums(whole)


class TestUnreadable:
    BROKEN = {  # noqa: RUF012
        "train/1.jpg": b"",
        "train/7.jpg": b"not an image",
        "val/2.jpg": b"\xff\xd8\xff\xe0truncated",
    }

    def test_are_left_out_and_reported(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**self.BROKEN), tmp_path / "set"
        path_of(inputs, "train", 9).unlink()
        path_of(inputs, "train", 4).unlink()
        os.mkfifo(path_of(inputs, "train", 4))  # must not block
        report = run(inputs, root, max_unreadable=5 / 24)
        assert report.counts == {"train": 16, "val": 3}
        reasons = dict(report.unreadable)
        assert list(reasons) == [f"train/{i}.jpg" for i in (4, 1, 9, 7)] + ["val/2.jpg"]
        assert reasons["train/9.jpg"] == os.strerror(errno.ENOENT)
        assert "regular file" in reasons["train/4.jpg"]
        assert "empty" in reasons["train/1.jpg"]
        assert json.loads((root / "report.json").read_text())["unreadable"] == [
            list(problem) for problem in report.unreadable
        ]
        builder = tfds.builder_from_directory(str(root))
        names = {record["file_name"].decode() for record in builder.as_data_source("train")}
        assert names == {f"train/{i}.jpg" for i in range(20)} - set(reasons)

    def test_too_many_stop_the_job(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**self.BROKEN), tmp_path / "set"
        with pytest.raises(InputError, match=r"1, such as train/1\.jpg.*max_unreadable"):
            run(inputs, root)
        assert not (root / MANIFEST).exists()
        listed = json.loads((root / UNFINISHED / "report.json").read_text())["unreadable"]
        assert [name for name, _ in listed] == ["train/1.jpg"]
        # With more allowed the job resumes; images that were unreadable before still count.
        with pytest.raises(InputError, match="3, such as train/1"):
            run(inputs, root, max_unreadable=2 / 24)
        assert run(inputs, root, max_unreadable=3 / 24).counts == {"train": 18, "val": 3}

    def test_extreme_sizes(self, make_inputs: Make, tmp_path: Path) -> None:
        line = np.zeros((1, 65_000, 3), np.uint8)
        huge = images.encode_jpeg(np.zeros((10_000, 9_000, 1), np.uint8), 10)
        inputs = make_inputs(**{"train/0.jpg": images.encode_jpeg(line, 90), "train/1.jpg": huge})
        image_format = ImageFormat(16, 3, "short_side", "jpeg", 95)
        reasons = dict(run(inputs, tmp_path / "set", image_format, max_unreadable=0.5).unreadable)
        assert "1040000 x 16" in reasons["train/0.jpg"]
        assert "9000 x 10000" in reasons["train/1.jpg"]

    def test_a_split_without_readable_images(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(val=1, **{"val/0.jpg": b"not an image"})
        with pytest.raises(InputError, match="'val'"):
            run(inputs, tmp_path / "set", max_unreadable=1)
        assert not (tmp_path / "set" / MANIFEST).exists()


class TestWarnings:
    def test_duplicates(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(train=12, val=5)
        original = path_of(inputs, "train", 7).read_bytes()
        path_of(inputs, "val", 3).write_bytes(original)
        path_of(inputs, "val", 1).write_bytes(b"broken")
        report = run(inputs, tmp_path / "set", max_unreadable=0.5)
        (warning,) = report.warnings
        assert re.search("'train' and 'val' share 1 .*val/3.jpg", warning)
        path_of(inputs, "train", 10).write_bytes(original)  # both of class 1
        path_of(inputs, "train", 0).write_bytes(original)  # of class 0
        report = run(inputs, tmp_path / "more", max_unreadable=0.5)
        assert re.search("'train' repeats 2 .* [12] .*train/(7|10).jpg", report.warnings[0])
        assert len(report.warnings) == 2

    def test_classes(self, make_inputs: Make, tmp_path: Path) -> None:
        (warning,) = run(make_inputs(train=3, val=2), tmp_path / "set").warnings
        assert re.search("'val' has no images of 1 .*'n3'", warning)
        inputs = make_inputs(train=1, val=1)
        for source in inputs.values():
            source.classes = ClassTable(("n1",), ("one",))
        (warning,) = run(inputs, tmp_path / "one").warnings
        assert "'n1'" in warning

    def test_a_split_without_labels(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(train=6, val=3)
        inputs["val"].labels[:] = UNLABELED
        report = run(inputs, tmp_path / "set")
        assert report.counts == {"train": 6, "val": 3}
        (warning,) = report.warnings
        assert "'val' has no labels" in warning


class TestRefusals:
    def test_killed_worker(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs()
        inputs["val"].read_one = os._exit  # of the worker that reads it, as if memory ran out
        with pytest.raises(InputError, match=r"prepare\.processes"):
            run(inputs, tmp_path / "set", processes=2)
        assert list((tmp_path / "set" / UNFINISHED).glob("train-*.npz"))
        assert not (tmp_path / "set" / MANIFEST).exists()

    def test_changed_inputs_and_settings(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(**{"train/1.jpg": b""}), tmp_path / "set"
        with pytest.raises(InputError, match="max_unreadable"):
            run(inputs, root)
        with pytest.raises(InputError, match="other quality"):
            run(inputs, root, ImageFormat(16, 3, "crop", "jpeg", 94), max_unreadable=1)
        path_of(inputs, "val", 0).write_bytes(b"changed")
        with pytest.raises(InputError, match="other shard_size, inputs"):
            run(inputs, root, shard_size=5, max_unreadable=1)
        run(inputs, tmp_path / "other", max_unreadable=1)
        path_of(inputs, "val", 0).write_bytes(b"changed again")
        with pytest.raises(InputError, match="other inputs"):
            run(inputs, tmp_path / "other", max_unreadable=1)

    def test_outputs_that_cannot_be_written(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, file = make_inputs(), tmp_path / "file"
        file.touch()
        not_utf8 = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
        for root in (tmp_path / "images", file, file / "below", not_utf8, tmp_path / ("x" * 256)):
            with pytest.raises(InputError, match=r"prepare\.output"):
                run(inputs, root)
        assert file.read_bytes() == b""
        assert not not_utf8.exists()

    def test_two_jobs_at_once(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs, root = make_inputs(), tmp_path / "set"

        def progress(done: int, total: int) -> None:
            with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
                run(inputs, root)

        run(inputs, root, progress=progress)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
    @pytest.mark.parametrize(("image_format", "processes"), [(JPEG, 1), (RAW, 1), (JPEG, 2)])
    def test_full_disk(
        self, make_inputs: Make, tmp_path: Path, image_format: ImageFormat, processes: int
    ) -> None:
        inputs, root = make_inputs(train=80, **{"train/0.jpg": b""}), tmp_path / "set"
        with pytest.raises(InputError, match="max_unreadable"):
            run(inputs, root, image_format, shard_size=40)
        (root / UNFINISHED / "train-00001.data").symlink_to("/dev/full")
        with pytest.raises(InputError, match=r"No space left on device.*prepare\.output"):
            run(inputs, root, image_format, shard_size=40, max_unreadable=1, processes=processes)
        assert not (root / MANIFEST).exists()
        assert not [path for path in root.iterdir() if "00001-of-00002" in path.name]
        report = run(inputs, root, image_format, shard_size=40, max_unreadable=1)  # room was made
        assert report.counts == {"train": 79, "val": 4}

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
    @pytest.mark.parametrize("name", [REPORT, "train.labels.npy", "features.json"])
    def test_disk_full_while_finalizing(self, make_inputs: Make, tmp_path: Path, name: str) -> None:
        inputs, root = make_inputs(), tmp_path / "set"
        (root / UNFINISHED).mkdir(parents=True)
        (root / name).symlink_to("/dev/full")
        with pytest.raises(InputError, match=r"prepare\.output"):
            run(inputs, root)
        assert not (root / MANIFEST).exists()
        (root / name).unlink()
        run(inputs, root)
        run(inputs, tmp_path / "whole")
        assert checksums(root) == checksums(tmp_path / "whole")

    def test_raw_images_that_cannot_fit(self, make_inputs: Make, tmp_path: Path) -> None:
        image_format = ImageFormat(2_000_000, 3, "crop", "raw", 95)  # 12 TB each
        with pytest.raises(InputError, match=r"288000\.0 GB.*prepare\.output"):
            run(make_inputs(), tmp_path / "set", image_format)


@pytest.mark.parametrize("name", ["a b", "a[1]*?", "{SPLIT}@8", "%41#", "ü…", "a\\'\n\"", "$HOME"])
def test_special_characters_in_paths(tmp_path: Path, name: str) -> None:
    source, output = tmp_path / name, tmp_path / "out" / name
    for number in range(4):
        path = source / "train" / f"{name}{number % 2}" / f"{name}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 60 * number).save(path)
    data = data_options("folder", source, image_size=16)
    run(open_inputs(InputOptions(data, ("train",), None, (), "")), output)
    data = data_options("prepared", output, image_size=16)
    assert open_source(data, "train").load(np.arange(4)).readable.all()
    builder = tfds.builder_from_directory(str(output))
    assert len(builder.as_data_source("train")) == 4
    shown = name.replace("\n", "\\x0a")
    assert builder.info.features["label"].names == [f"{shown}0", f"{shown}1"]
