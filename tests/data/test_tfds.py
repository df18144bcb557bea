import io
import json
import shlex
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from options import data_options
from PIL import Image

from alexnet_jax.data.source import DataOptions, open_source
from alexnet_jax.errors import InputError


def png(level: int, mode: str = "RGB") -> io.BytesIO:
    """An image of one level, as the bytes of a file: TFDS encodes arrays only with TensorFlow."""
    file = io.BytesIO()
    Image.new(mode, (9, 6), (level,) * len(mode)).save(file, "PNG")
    file.seek(0)
    return file


class TinyImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Level 10 * i has the label i % 3; one image in the validation split is broken."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["ape", "bee", "cat"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        images = [png(10 * i) for i in range(20)]
        return {
            "train": self._generate_examples(images),
            "validation": self._generate_examples([*images[:3], io.BytesIO(b"broken")]),
            "test": self._generate_examples(images[:2], unlabeled=True),
        }

    def _generate_examples(self, images, unlabeled=False):
        for i, image in enumerate(images):
            label = -1 if unlabeled else i % 3
            image.seek(0)
            yield i, {"file_name": f"{i}.png", "image": image, "label": label}


class TinyGray(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 9, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": png(70, "L"), "label": 1}


class TinyText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "hello", "label": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyImages, TinyGray, TinyText):
        builder(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


def config(root, name: str = "tiny_images", **changes) -> DataOptions:
    return data_options("tfds", root, name=name, image_size=8, **changes)


def test_images_and_labels_belong_together(root):
    source = open_source(config(root), "train")
    examples = source.load(np.arange(20))
    assert examples.images.shape == (20, *source.image_shape) == (20, 8, 8, 3)
    assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)
    levels = examples.images[:, 0, 0, 0]
    assert sorted(levels.tolist()) == list(range(0, 200, 10))
    assert (examples.images == levels[:, None, None, None]).all()
    np.testing.assert_array_equal(examples.labels, levels // 10 % 3)
    assert examples.readable.all()


def test_the_order_is_fixed_and_as_requested(root):
    source = open_source(config(root), "train")
    whole = source.load(np.arange(20)).images
    np.testing.assert_array_equal(source.load(np.array([7, 19, 7])).images, whole[[7, 19, 7]])
    again = open_source(config(root), "train")
    np.testing.assert_array_equal(again.load(np.arange(20)).images, whole)


def test_names(root):
    source = open_source(config(root), "train[:50%]")
    assert source.class_names == ("ape", "bee", "cat")
    assert source.describe(3) == "tiny_images train[:50%] example 3"


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 20), ("train[:90%]", 18), ("train[90%:]", 2), ("train[:5]+validation", 9)],
)
def test_split_notation(root, split, count):
    assert len(open_source(config(root), split)) == count


def test_slices_share_nothing(root):
    parts = [open_source(config(root), split) for split in ("train[:90%]", "train[90%:]")]
    levels = [level for s in parts for level in s.load(np.arange(len(s))).images[:, 0, 0, 0]]
    assert sorted(levels) == list(range(0, 200, 10))


def test_a_broken_image_is_zeros_and_unreadable(root):
    source = open_source(config(root), "validation")
    examples = source.load(np.arange(4))
    assert examples.readable.sum() == 3
    assert (examples.images[~examples.readable] == 0).all()


def test_a_root_with_characters_that_are_special_to_globs(root, tmp_path):
    copy = tmp_path / "[a-z]*? {x}"
    shutil.copytree(root, copy)
    assert len(open_source(config(copy), "train")) == 20


def test_a_damaged_record_is_unreadable(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (path,) = copy.glob("tiny_images/*/*-train.array_record*")
    data = path.read_bytes()
    start = data.index(b"\x89PNG")
    path.write_bytes(data[:start] + bytes(20) + data[start + 20 :])
    examples = open_source(config(copy), "train").load(np.arange(20))
    assert examples.readable.sum() == 19


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_images(root, channels):
    source = open_source(config(root, "tiny_gray", channels=channels), "train")
    examples = source.load(np.array([0]))
    assert examples.images.shape == (1, 8, 8, channels)
    assert (examples.images == 70).all()
    assert source.class_names == ("0", "1")


@pytest.mark.parametrize("name", ["tiny_images:1.0.0", "tiny_images:1.*.*"])
def test_version_may_be_named(root, name):
    assert len(open_source(config(root, name), "train")) == 20


def test_tensorflow_is_not_imported(root):
    open_source(config(root), "train").load(np.array([0]))
    assert "tensorflow" not in sys.modules


class TestErrors:
    @pytest.mark.parametrize(
        "split", ["val", "train[", "train[:0]", "train[:0%]", "train[50%:40%]", "train[:99]x", ""]
    )
    def test_unknown_split(self, root, split):
        with pytest.raises(InputError, match="train") as caught:
            open_source(config(root), split)
        assert "\n" not in str(caught.value)

    def test_split_without_labels(self, root):
        with pytest.raises(InputError, match="'test'"):
            open_source(config(root), "test")

    def test_dataset_without_images(self, root):
        with pytest.raises(InputError, match=r"tiny_text.*text"):
            open_source(config(root, "tiny_text"), "train")

    @pytest.mark.parametrize("name", ["", "Bad name!", "imagenet2012:"])
    def test_name_that_cannot_be_parsed(self, root, name):
        with pytest.raises(InputError, match=r"data\.name"):
            open_source(config(root, name), "train")

    @pytest.mark.parametrize("name", ["imagenet2012", "imagenette", "coco", "nosuchset"])
    def test_dataset_that_is_not_prepared(self, tmp_path, name):
        with pytest.raises(InputError) as caught:
            open_source(config(tmp_path, name), "train")
        missing, get, how = str(caught.value).splitlines()
        assert f"{name} is not prepared in {tmp_path}" in missing
        assert "--config.data.source=folder --config.data.root=DIR" in missing
        assert "alexnet_jax[prepare]" in get
        assert ("ILSVRC2012_img_train.tar" in get) == (name == "imagenet2012")
        python, flag, script = shlex.split(how.removeprefix("Then: "))
        assert (python, flag) == ("python", "-c")
        compile(script, "command", "exec")
        for part in (f"'{name}'", f"data_dir='{tmp_path}'", "file_format='array_record'"):
            assert part in script
        assert not list(tmp_path.iterdir())  # nothing was started

    def test_dataset_without_random_access(self, root, tmp_path):
        """The metadata of a dataset prepared as tfrecord, the default of TFDS."""
        copy = tmp_path / "tiny_images" / "1.0.0"
        copy.mkdir(parents=True)
        for path in (root / "tiny_images" / "1.0.0").glob("*.*[nt]"):
            (copy / path.name).write_bytes(path.read_bytes())
        info = json.loads((copy / "dataset_info.json").read_text())
        (copy / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
        with pytest.raises(InputError) as caught:
            open_source(config(tmp_path), "train")
        missing, _, how = str(caught.value).splitlines()
        assert f"{copy} as tfrecord, which has no random access" in missing
        assert f"--config.data.root={tmp_path}_array_record" in missing
        assert f"data_dir='{tmp_path}_array_record'" in how
