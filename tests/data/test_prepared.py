"""Prepared datasets as a source: the same images, in any order, opened at once."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from options import data_options

from alexnet_jax.data.images import RESIZERS, decode_jpeg, encode_jpeg
from alexnet_jax.data.prepared import MANIFEST, labels_file, statistics_file
from alexnet_jax.data.source import DataOptions, open_source
from alexnet_jax.data.statistics import StatisticsOptions, statistics_of
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.inputs import Inputs
from alexnet_jax.prepare.shards import ImageFormat, PrepareOptions

Make = Callable[..., Inputs]


def config(root: Path | None, **changes: object) -> DataOptions:
    return data_options("prepared", root, **{"image_size": 16} | changes)


JPEG = ImageFormat(16, 3, "crop", "jpeg", 95)


def prepare_images(inputs: Inputs, root: Path, image_format: ImageFormat = JPEG) -> None:
    prepare(inputs, PrepareOptions(image_format, root, 6, 1, 0.0))


@pytest.fixture(params=["jpeg", "raw"])
def root(request: pytest.FixtureRequest, make_inputs: Make, tmp_path: Path) -> Path:
    """A dataset of 20 + 4 images in shards of five and four."""
    folder = tmp_path / "set"
    prepare_images(make_inputs(), folder, ImageFormat(16, 3, "crop", request.param, 95))
    return folder


def expected(make_inputs: Make, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """What the dataset must hold, by shard: i, i + k, i + 2k ... in shard i of k."""
    kind = json.loads((root / MANIFEST).read_text())["format"]
    image_format = ImageFormat(16, 3, "crop", kind, 95)
    source = make_inputs()[split]
    count = -(-len(source) // 6)
    images, labels = [], []
    for index in np.concatenate([np.arange(i, len(source), count) for i in range(count)]):
        ((data, label),) = source.read(np.array([index]))
        stored, pixels = image_format.convert(data)
        images.append(decode_jpeg(stored, 3) if kind == "jpeg" else pixels)
        labels.append(label)
    return np.stack(images), np.array(labels)


class TestReading:
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_in_any_order(self, root: Path, make_inputs: Make, split: str) -> None:
        images, labels = expected(make_inputs, root, split)
        source = open_source(config(root), split)
        assert len(source) == len(labels)
        assert source.class_names == ("n1", "n2", "n3")
        assert source.image_shape == (16, 16, 3)
        order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(labels)), 2))
        for indices in (np.arange(len(labels)), order, order[:1], order[:0]):
            examples = source.load(indices)
            np.testing.assert_array_equal(examples.images, images[indices])
            np.testing.assert_array_equal(examples.labels, labels[indices])
            assert examples.readable.all()

    def test_from_many_threads(self, root: Path) -> None:
        source = open_source(config(root), "train")
        whole = open_source(config(root), "train").load(np.arange(20)).images
        with ThreadPoolExecutor(8) as pool:
            for start, found in enumerate(
                pool.map(lambda start: source.load((np.arange(20) + start) % 20), range(40))
            ):
                np.testing.assert_array_equal(found.images, np.roll(whole, -start, axis=0))

    def test_from_another_process(self, root: Path) -> None:
        source = open_source(config(root), "train")
        whole = source.load(np.arange(20))
        other = pickle.loads(pickle.dumps(source))  # as Grain hands it over, files open
        for found, wanted in zip(other.load(np.arange(20)), whole, strict=True):
            np.testing.assert_array_equal(found, wanted)

    def test_another_size(self, root: Path) -> None:
        same = open_source(config(root), "train").load(np.arange(20)).images
        other = open_source(config(root, image_size=8), "train").load(np.arange(20)).images
        assert other.shape == (20, 8, 8, 3)
        assert np.abs(other.mean((1, 2)) - same.mean((1, 2))).max() < 4

    def test_parts_and_aliases(self, root: Path) -> None:
        assert len(open_source(config(root), "validation")) == 4
        part = open_source(config(root), "train[:60%]")
        assert len(part) == 12
        assert set(part.load(np.arange(12)).labels.tolist()) == {0, 1, 2}

    def test_the_stored_statistics_are_those_of_the_images(self, root: Path) -> None:
        source = open_source(config(root), "train")
        images = source.load(np.arange(20)).images.astype(np.float64)
        found = statistics_of(source, StatisticsOptions("image", colors=True))
        np.testing.assert_allclose(found["mean"], images.mean(0), rtol=1e-6)
        covariance = np.cov(images.reshape(-1, 3), rowvar=False, bias=True)
        spread = found["pca_components"] * found["pca_std"] ** 2 @ found["pca_components"].T
        np.testing.assert_allclose(spread, covariance, rtol=1e-4, atol=1e-2)
        found = statistics_of(source, StatisticsOptions("channel"))
        np.testing.assert_allclose(found["mean"][0, 0], images.mean((0, 1, 2)), rtol=1e-6)
        # A part, some images and another size have other means.
        part = open_source(config(root), "train[:50%]")
        wanted = part.load(np.arange(10)).images.mean(0, dtype=np.float64)
        found = statistics_of(part, StatisticsOptions("image"))
        np.testing.assert_allclose(found["mean"], wanted, rtol=1e-6)
        found = statistics_of(source, StatisticsOptions("image", num_examples=2))
        np.testing.assert_allclose(found["mean"], images[[0, 19]].mean(0))
        small = open_source(config(root, image_size=8), "train")
        assert statistics_of(small, StatisticsOptions("image"))["mean"].shape == (8, 8, 3)

    def test_images_of_one_short_side_are_cropped(self, make_inputs: Make, tmp_path: Path) -> None:
        prepare_images(
            make_inputs(), tmp_path / "set", ImageFormat(16, 1, "short_side", "jpeg", 95)
        )
        source = open_source(config(tmp_path / "set", channels=1), "train")
        assert source.load(np.arange(20)).readable.all()

    def test_enlarging_is_a_warning(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        size = json.loads((root / MANIFEST).read_text())["size"]
        open_source(config(root, image_size=size), "train")
        assert not caplog.messages
        source = open_source(config(root, image_size=size + 8), "train")
        assert (
            f"are {size} pixels wide and are enlarged to data.image_size, {size + 8}" in caplog.text
        )
        assert source.load(np.arange(2)).images.shape == (2, size + 8, size + 8, 3)

    def test_names(self, root: Path) -> None:
        source = open_source(config(root), "train")
        name = source.describe(6)
        stored = json.loads((root / MANIFEST).read_text())["format"]
        # the second of the second shard of four
        assert name == {"jpeg": "train/5.jpg", "raw": f"{root} train example 6"}[stored]


def test_roots_of_any_name(make_inputs: Make, tmp_path: Path) -> None:
    prepare_images(make_inputs(), tmp_path / "set")
    root = (tmp_path / "set").rename(tmp_path / os.fsdecode(b"\xff [a-z]*? a:b %20 {x}"))
    assert open_source(config(root), "train").load(np.arange(20)).readable.all()


def test_damaged_images_are_unreadable_one_by_one(make_inputs: Make, tmp_path: Path) -> None:
    root = tmp_path / "set"
    prepare_images(make_inputs(), root)
    path = root / "images-val.array_record-00000-of-00001"
    data = path.read_bytes()
    start = data.index(b"\xff\xd8\xff")
    whole = open_source(config(root), "val").load(np.arange(4))
    assert whole.readable.all()
    jpeg = encode_jpeg(whole.images[0], 95)
    path.write_bytes(data[:start] + bytes(len(jpeg) // 2) + data[start + len(jpeg) // 2 :])
    source = open_source(config(root), "val")
    with_damage = source.load(np.arange(4))
    assert with_damage.readable.sum() == 3


class TestErrors:
    def test_a_folder_without_a_complete_dataset(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"data\.root"):
            open_source(config(None), "train")
        with pytest.raises(InputError, match=r"none.*data\.root"):
            open_source(config(tmp_path / "none"), "train")
        with pytest.raises(InputError, match=r"prepare one with --config\.job=prepare"):
            open_source(config(tmp_path), "train")
        (tmp_path / "unfinished").mkdir()
        with pytest.raises(InputError, match=r"finish it with --config\.job=prepare"):
            open_source(config(tmp_path), "train")
        for damaged in ("{", "[]", "{}"):
            (tmp_path / MANIFEST).write_text(damaged)
            with pytest.raises(InputError, match=r"prepared\.json"):
                open_source(config(tmp_path), "train")

    def test_what_the_dataset_does_not_have(self, root: Path) -> None:
        with pytest.raises(InputError, match=r"'tset'.*train, val"):
            open_source(config(root), "tset")
        with pytest.raises(InputError, match=r"data\.channels"):
            open_source(config(root, channels=1), "train")

    @pytest.mark.parametrize("resize", ["crop", "warp", "torchvision", "short_side"])
    def test_images_prepared_for_another_resize(
        self, make_inputs: Make, tmp_path: Path, resize: str
    ) -> None:
        prepare_images(make_inputs(4), tmp_path / "set", ImageFormat(16, 3, resize, "jpeg", 95))
        for other in RESIZERS:
            options = config(tmp_path / "set", resize=other)
            if other == resize or (resize, other) == ("short_side", "crop"):
                source = open_source(options, "train")
                assert source.resize == other
                assert source.load(np.arange(4)).images.shape == (4, 16, 16, 3)
            else:
                with pytest.raises(InputError, match=rf"'{resize}', but data\.resize.*'{other}'"):
                    open_source(options, "train")

    def test_changed_files(self, root: Path) -> None:
        shard = next(iter(root.glob("images-train*00001*")))
        data = shard.read_bytes()
        shard.write_bytes(data[:-1])
        with pytest.raises(InputError, match=f"{shard.name}.*{len(data)} bytes"):
            open_source(config(root), "train")
        shard.unlink()
        with pytest.raises(InputError, match=shard.name):
            open_source(config(root), "train")
        labels = labels_file(root, "val")
        np.save(labels, np.zeros(3, np.int32))
        with pytest.raises(InputError, match=r"val\.labels\.npy has 3 labels for 4 images"):
            open_source(config(root), "val")
        labels.unlink()
        with pytest.raises(InputError, match=r"val\.labels\.npy"):
            open_source(config(root), "val")
        statistics_file(root, "val").write_bytes(b"PK")
        np.save(labels, np.zeros(4, np.int32))
        with pytest.raises(InputError, match=r"val\.statistics\.npz"):
            open_source(config(root), "val").statistics()

    def test_no_labels(self, make_inputs: Make, tmp_path: Path) -> None:
        inputs = make_inputs(train=3)
        inputs["val"].labels[:] = -1
        splits = {"train": inputs["train"], "test": inputs["val"]}
        prepare_images(splits, tmp_path / "set")
        with pytest.raises(InputError, match=r"The split 'test' of .* has no labels"):
            open_source(config(tmp_path / "set"), "test")


PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from alexnet_jax.data import prepared
from alexnet_jax.data.source import DataOptions

def resident():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024

before, start = resident(), time.perf_counter()
source = prepared.open_split(eval(sys.argv[1]), "train")
print(len(source), time.perf_counter() - start, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_index_of_imagenet_s_size_opens_fast(tmp_path: Path) -> None:
    count, shard_size = 1_281_167, 4096
    shards = -(-count // shard_size)
    files = []
    for index in range(shards):
        name = f"images-train.array_record-{index:05d}-of-{shards:05d}"
        (tmp_path / name).touch()
        examples = len(range(index, count, shards))
        files.append({"name": name, "examples": examples, "bytes": 0})
    manifest = {
        "size": 256,
        "channels": 3,
        "resize": "crop",
        "format": "jpeg",
        "quality": 95,
        "class_ids": [f"n{index:08d}" for index in range(1000)],
        "class_labels": [f"class number {index}" for index in range(1000)],
        "splits": {"train": files},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    np.save(labels_file(tmp_path, "train"), np.arange(count, dtype=np.int32) % 1000)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, repr(config(tmp_path, image_size=256))],
        capture_output=True,
        text=True,
        check=True,
    )
    found, seconds, megabytes = result.stdout.split()
    assert int(found) == count
    assert float(seconds) < 2
    assert float(megabytes) < 200
