import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.source import DataOptions, open_source
from alexnet_jax.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def config(root: Path | str | None, **changes) -> DataOptions:
    fixed = {"source": "folder", "train_split": "train", "image_size": 8, "channels": 3}
    return DataOptions(**fixed | {"root": None if root is None else str(root)} | changes)


def put(path: Path, level: int = 0) -> Path:
    """Writes a uniform gray picture whose level tells it apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() in (".png", ".txt") else None
    Image.new("L", (10, 8), level).save(path, kind)
    return path


def paths(source) -> list[str]:
    return [os.path.relpath(source.describe(index), source.folder) for index in range(len(source))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in both splits, a picture each."""
    for place in ("train/cat", "train/dog", "val/cat", "val/dog"):
        put(tmp_path / place / "1.png")
    return tmp_path


class TestListing:
    def test_class_order_is_that_of_ascii(self, tmp_path):
        for name in ("b", "B", "a", "Z2", "Z10", "_"):
            put(tmp_path / "train" / name / "1.png")
        assert open_source(config(tmp_path), "train").class_names == (
            "B", "Z10", "Z2", "_", "a", "b",
        )  # fmt: skip

    def test_order_does_not_depend_on_that_of_creation(self, root):
        names = [f"{number}.png" for number in np.random.default_rng(0).permutation(30)]
        for name in names:
            put(root / "train/dog" / name)
        source = open_source(config(root), "train")
        assert paths(source) == ["cat/1.png", *sorted(f"dog/{name}" for name in names)]
        np.testing.assert_array_equal(source.labels, [0] + [1] * 30)

    def test_pictures_are_told_by_extension_in_any_case(self, root):
        kept = ["2.JPEG", "3.Jpg", "4.bmp", "5.WEBP", "6.tiff", "7.PNG", "8.gif", "9.ppm"]
        for name in [*kept, ".8.png", "9.txt"]:
            put(root / "train/cat" / name)
        (root / "train/cat/Thumbs.db").touch()
        put(root / "train/.ipynb_checkpoints/1.png")
        put(root / "train/stray.png")
        source = open_source(config(root), "train")
        assert source.class_names == ("cat", "dog")
        assert paths(source) == ["cat/1.png", *(f"cat/{name}" for name in kept), "dog/1.png"]

    def test_folders_inside_a_class_are_flattened(self, root):
        for name in ("a/2.png", "a/b/3.png", "a0.png"):
            put(root / "train/cat" / name)
        put(root / "train/cat/.hidden/4.png")
        expected = ["cat/1.png", "cat/a/2.png", "cat/a/b/3.png", "cat/a0.png", "dog/1.png"]
        assert paths(open_source(config(root), "train")) == expected

    def test_names_of_any_script(self, root):
        put(root / "train/cat" / "Kätzchen 猫.png", 40)
        put(root / "train/cat" / os.fsdecode(b"\xff.png"), 50)
        source = open_source(config(root), "train")
        examples = source.load(np.arange(len(source)))
        assert examples.readable.all()
        assert sorted(examples.images[:, 0, 0, 0].tolist()) == [0, 0, 40, 50]

    def test_class_without_pictures_is_recorded(self, root):
        (root / "train/ape").mkdir()
        (root / "train/yak").mkdir()
        put(root / "val/yak/1.png")
        train, val = (open_source(config(root), split) for split in ("train", "val"))
        assert train.class_names == val.class_names == ("ape", "cat", "dog", "yak")
        np.testing.assert_array_equal(val.labels, [1, 2, 3])


class TestLinks:
    def test_super_class_of_links(self, root):
        (root / "train/pet").mkdir()
        for name in ("cat", "dog"):
            (root / "train/pet" / name).symlink_to(root / "train" / name)
        source = open_source(config(root), "train")
        assert paths(source) == ["cat/1.png", "dog/1.png", "pet/cat/1.png", "pet/dog/1.png"]

    def test_linked_split_class_and_picture(self, root, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        for name in ("a", "b"):
            put(elsewhere / name / "1.png", 9)
        (root / "train/cow").symlink_to(elsewhere / "a")
        (root / "train/cat/2.png").symlink_to(elsewhere / "b/1.png")
        (root / "test").symlink_to(root / "val")
        source = open_source(config(root), "train")
        assert paths(source) == ["cat/1.png", "cat/2.png", "cow/1.png", "dog/1.png"]
        assert source.load(np.array([1, 2])).images.min() == 9
        assert len(open_source(config(root), "test")) == 2

    @pytest.mark.parametrize("target", [".", "..", "../..", "nested"])
    def test_circle_is_not_followed(self, root, target):
        put(root / "train/cat/nested/2.png")
        (root / "train/cat/nested/link").symlink_to(root / "train/cat" / target)
        source = open_source(config(root), "train")
        assert paths(source) == ["cat/1.png", "cat/nested/2.png", "dog/1.png"]

    def test_link_to_nowhere_is_unreadable(self, root):
        (root / "train/cat/2.png").symlink_to(root / "gone.png")
        source = open_source(config(root), "train")
        np.testing.assert_array_equal(source.load(np.arange(3)).readable, [True, False, True])

    def test_link_to_itself_is_named(self, root):
        (root / "train/cat/knot").symlink_to("knot")
        with pytest.raises(InputError, match=r"knot cannot be listed \(.*IMAGE"):
            open_source(config(root), "train")


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "held_out"),
        [
            ("train", "val"),
            ("train", "valid"),
            ("training", "validation"),
            ("Train", "Test"),
            ("train_images", "test_images"),
        ],
    )
    @pytest.mark.parametrize("asked", ["val", "validation"])
    def test_aliases_in_any_case(self, tmp_path, train, held_out, asked):
        for name in ("cat", "dog"):
            put(tmp_path / train / name / "1.png")
            put(tmp_path / held_out / name / "2.png")
        assert open_source(config(tmp_path), "train").folder == tmp_path / train
        assert open_source(config(tmp_path), asked).folder == tmp_path / held_out

    def test_nearest_name_wins(self, root):
        for split in ("Validation", "test"):
            put(root / split / "cat" / "1.png")
        for asked, found in [("val", "val"), ("validation", "Validation"), ("test", "test")]:
            assert open_source(config(root), asked).folder == root / found

    def test_exact_case_wins(self, root):
        put(root / "VAL/cat/1.png")  # the same folder where the file system ignores case
        assert open_source(config(root), "val").folder == root / "val"

    def test_validation_comes_before_test(self, root):
        put(root / "test/cat/1.png")
        assert open_source(config(root), "validation").folder == root / "val"

    def test_test_is_not_answered_with_val(self, root):
        with pytest.raises(InputError, match=f"{root} has no folder for split 'test'"):
            open_source(config(root), "test")

    def test_ambiguity_is_refused(self, root):
        put(root / "valid/cat/1.png")
        with pytest.raises(InputError, match=r"\(val, valid\).*--config\.data\.eval_split"):
            open_source(config(root), "validation")

    def test_any_other_name_is_taken_as_it_stands(self, root):
        put(root / "fold3/cat/1.png")
        assert len(open_source(config(root), "fold3")) == 1

    def test_classes_are_those_of_the_training_split(self, root):
        put(root / "train/ape/1.png")
        (root / "val/cat/1.png").unlink()
        (root / "val/cat").rmdir()
        source = open_source(config(root), "val")
        assert source.class_names == ("ape", "cat", "dog")
        np.testing.assert_array_equal(source.labels, [2])

    def test_part_of_training_for_evaluation(self, root):
        for number in range(2, 11):
            put(root / f"train/cat/{number}.png")
            put(root / f"train/dog/{number}.png")
        whole = config(root, train_split="train[:90%]")
        train, val = (open_source(whole, split) for split in ("train[:90%]", "train[90%:]"))
        assert train.class_names == val.class_names == ("cat", "dog")
        found = [[part.describe(i) for i in range(len(part))] for part in (train, val)]
        assert [len(names) for names in found] == [18, 2]
        assert sorted(found[0] + found[1]) == sorted(str(path) for path in root.glob("train/*/*"))
        assert {Path(name).parent.name for name in found[1]} == {"cat", "dog"}

    def test_class_unknown_to_training_is_refused(self, root):
        put(root / "val/emu/1.png")
        with pytest.raises(InputError, match=f"{root}/val has the class folder 'emu'"):
            open_source(config(root), "val")


def put_classes(root: Path, count: int = 20) -> Path:
    """Fills a root with class folders alone."""
    for name in ("cat", "dog", "emu"):
        for number in range(count):
            put(root / name / f"{number}.png", number)
    return root


class TestOneRoot:
    def test_a_share_of_each_class_is_held_out(self, tmp_path, caplog):
        put_classes(tmp_path)
        whole = config(tmp_path, holdout=0.25)
        train, val = (open_source(whole, split) for split in ("train", "validation"))
        np.testing.assert_array_equal(np.bincount(train.labels), [15, 15, 15])
        np.testing.assert_array_equal(np.bincount(val.labels), [5, 5, 5])
        assert sorted(paths(train) + paths(val)) == sorted(
            str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")
        )
        # Classes of the same names hold out the same ones, in no order of the names.
        numbers = [int(Path(path).stem) for path in paths(val)]
        assert numbers[:5] == numbers[5:10] == numbers[10:]
        assert sorted(numbers[:5]) not in (list(range(5)), list(range(15, 20)))
        for source in (train, val):  # pictures and labels still belong together
            examples = source.load(np.arange(len(source)))
            levels = [int(Path(path).stem) for path in paths(source)]
            np.testing.assert_array_equal(examples.images[:, 0, 0, 0], levels)
            found = [source.class_names[label] for label in examples.labels]
            assert found == [path.split("/")[0] for path in paths(source)]

    def test_another_picture_moves_at_most_one(self, tmp_path):
        put_classes(tmp_path)
        before = set(paths(open_source(config(tmp_path, holdout=0.2), "val")))
        moved = []
        for number in range(100, 120):
            put(tmp_path / "dog" / f"{number}.png")
            after = set(paths(open_source(config(tmp_path, holdout=0.2), "val")))
            assert len(before - after) <= 1
            assert len(after - before) <= 1
            moved.append(before != after)
            before = after
        assert any(moved)

    @pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1)])
    def test_small_classes(self, tmp_path, count, held):
        put_classes(tmp_path)
        for number in range(count):
            put(tmp_path / "few" / f"{number}.png")
        whole = config(tmp_path, holdout=0.01)
        val = open_source(whole, "val")
        assert np.bincount(val.labels, minlength=4)[val.class_names.index("few")] == held

    def test_the_root_itself(self, tmp_path):
        put_classes(tmp_path)
        put(tmp_path / "train" / "1.png")  # a class of trains
        whole = config(tmp_path, train_split=".[:50%]")
        assert open_source(whole, ".").class_names == ("cat", "dog", "emu", "train")
        assert len(open_source(whole, ".[:50%]")) == 30

    @pytest.mark.parametrize("wrong", ["a/train/cat", "a/val/cat"])
    def test_folders_above_the_right_root_are_refused(self, tmp_path, wrong):
        put(tmp_path / wrong / "1.png")
        put(tmp_path / "b/cat/1.png")
        with pytest.raises(InputError, match="has no folder for split 'train'"):
            open_source(config(tmp_path, holdout=0.1), "train")


def test_words_come_from_the_class_table_in_the_root(root):
    (root / "synset_words.txt").write_text("dog hound, Canis\nemu bird\n")
    for split in ("train", "val", "train[:1]"):
        assert open_source(config(root), split).class_labels == ("cat", "hound, Canis")


def remove_pictures(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.unlink()


def flatten(root: Path) -> None:
    for path in list(root.glob("*/*/*.png")):
        path.rename(path.parents[1] / f"{path.parent.name}.png")
        path.parent.rmdir()


def keep_one_class(root: Path) -> None:
    (root / "train/dog/1.png").unlink()
    (root / "train/dog").rmdir()


class TestMistakes:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (remove_pictures, "train has no images in class folders"),
            (flatten, "train has no class folders"),
            (lambda root: (root / "train").rename(root / "images"), "no folder for split 'train'"),
        ],
    )
    def test_message_names_the_folder_and_shows_the_layout(self, root, spoil, message):
        spoil(root)
        with pytest.raises(InputError, match=message) as caught:
            open_source(config(root), "train")
        text = str(caught.value)
        assert "\n" not in text
        assert f"{root}/train/CLASS/IMAGE.jpg" in text

    @pytest.mark.parametrize("name", ["nowhere", "train/cat/1.png"])
    def test_root_that_is_no_folder(self, root, name):
        with pytest.raises(InputError, match=f"{root / name} cannot be listed"):
            open_source(config(root / name), "train")

    def test_no_root(self):
        with pytest.raises(InputError, match=r"--config\.data\.root=DIR"):
            open_source(config(None), "train")


class TestReading:
    def test_pictures_come_in_the_order_asked_for(self, root):
        for level in (10, 20, 30):
            put(root / f"train/dog/{level}.png", level)
        source = open_source(config(root), "train")
        examples = source.load(np.array([4, 0, 3, 4]))
        assert examples.images.shape == (4, *source.image_shape) == (4, 8, 8, 3)
        assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(examples.images[:, 0, 0, 0], [30, 0, 20, 30])
        np.testing.assert_array_equal(examples.labels, [1, 0, 1, 1])
        assert source.describe(4) == f"{root}/train/dog/30.png"

    def test_broken_pictures_are_zeros_and_unreadable(self, root):
        whole = put(root / "train/cat/2.png", 200).read_bytes()
        (root / "train/cat/3.png").write_bytes(whole[: len(whole) // 2])
        (root / "train/cat/4.png").touch()
        source = open_source(config(root, channels=1), "train")
        (root / "train/dog/1.png").unlink()  # after it was listed
        examples = source.load(np.array([1, 2, 3, 4]))
        np.testing.assert_array_equal(examples.readable, [True, False, False, False])
        np.testing.assert_array_equal(examples.images.max(axis=(1, 2, 3)), [200, 0, 0, 0])
        np.testing.assert_array_equal(examples.labels, [0, 0, 0, 1])


def test_tiny_imagenet(tmp_path):
    """Real JPEG files, color and gray, 64 x 64."""
    archive = SHARED / "tiny_imagenet_20.zip"
    if not archive.exists():
        pytest.skip(f"{archive.name} is not in ../shared/data")
    with zipfile.ZipFile(archive) as pictures:
        for split, count in (("train", 3), ("val", 2)):
            for wnid in ("n01443537", "n02123045"):
                names = [n for n in pictures.namelist() if f"{split}/{wnid}/" in f"/{n}"]
                names = [name for name in names if name.endswith(".JPEG")][:count]
                assert len(names) == count
                for name in names:
                    target = tmp_path / split / wnid / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(pictures.read(name))
    for split, count in (("train", 6), ("validation", 4)):
        source = open_source(config(tmp_path, image_size=128), split)
        examples = source.load(np.arange(len(source)))
        assert source.class_names == ("n01443537", "n02123045")
        assert examples.images.shape == (count, 128, 128, 3)
        assert examples.readable.all()
        assert (examples.images.std(axis=(1, 2, 3)) > 5).all()  # pictures, not blanks
