import os
import socket
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from options import data_options
from PIL import Image

from alexnet_jax.data.source import DataOptions, open_source, open_splits
from alexnet_jax.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def config(root: Path, **changes) -> DataOptions:
    return data_options("folder", root, **{"image_size": 8} | changes)


def put(path: Path, level: int = 0) -> Path:
    """Writes a uniform gray image; the level identifies it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10, 8), level).save(path, "PNG")  # recognized by content, whatever its name
    return path


def paths(source) -> list[str]:
    return [os.path.relpath(source.describe(index), source.folder) for index in range(len(source))]


@pytest.fixture(autouse=True)
def _only_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """The program itself logs more, also after a test that ran it."""
    caplog.set_level("WARNING", logger="alexnet_jax")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in both splits, an image each."""
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        put(tmp_path / name / "1.png")
    return tmp_path


class TestListing:
    def test_classes_are_in_ascii_order(self, tmp_path):
        for name in ("b", "B", "a", "Z2", "Z10", "_"):
            put(tmp_path / "train" / name / "1.png")
        assert open_source(config(tmp_path), "train").class_names == (
            "B", "Z10", "Z2", "_", "a", "b",
        )  # fmt: skip

    def test_the_order_does_not_depend_on_creation(self, root):
        names = [f"{number}.png" for number in np.random.default_rng(0).permutation(30)]
        for name in names:
            put(root / "train/dog" / name)
        source = open_source(config(root), "train")
        assert paths(source) == ["cat/1.png", *sorted(f"dog/{name}" for name in names)]
        np.testing.assert_array_equal(source.labels, [0] + [1] * 30)

    def test_images_are_recognized_by_extension_in_any_case(self, root, caplog):
        kept = ["2.JPEG", "3.Jpg", "4.bmp", "5.WEBP", "6.tiff", "7.PNG", "8.gif", "9.ppm"]
        kept += ["A.jfif", "B.jpe", "C.JIF", "D.pnm"]
        for name in kept:
            put(root / "train/cat" / name)
        for name in ("cat/boxes.txt", "cat/a.HEIC", "dog/b.heic", "dog/LICENSE"):
            (root / "train" / name).touch()
        put(root / "train/stray.png")
        source = open_source(config(root), "train")
        assert source.class_names == ("cat", "dog")
        assert paths(source) == ["cat/1.png", *(f"cat/{name}" for name in kept), "dog/1.png"]
        (message,) = caplog.messages
        for skipped in (
            "2 .heic",
            "1 .txt",
            "1 without extension",
            "1 images outside class folders",
        ):
            assert skipped in message

    def test_side_files_are_neither_images_nor_classes(self, root, caplog):
        folders = ("@eaDir", "__MACOSX", "#recycle", "lost+found", "$RECYCLE.BIN")
        folders += ("System Volume Information", ".ipynb_checkpoints", "@Recently-Snapshot")
        for folder in folders:
            for parent in ("", "train", "train/cat", "val"):
                put(root / parent / folder / "x" / "1.png")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.png", ".hidden.png"):
            for parent in ("train", "train/cat"):
                (root / parent / name).touch()
        for split in ("train", "val"):
            source = open_source(config(root), split)
            assert source.class_names == ("cat", "dog")
            assert paths(source) == ["cat/1.png", "dog/1.png"]
        assert not caplog.messages

    @pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
    def test_special_files_are_unreadable_and_do_not_block(self, root, kind, tmp_path_factory):
        path = root / "train/cat/2.png"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:  # the path of a socket must be short
            short = tmp_path_factory.mktemp("s") / "s"
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(str(short))
            path.symlink_to(short)
        source = open_source(config(root), "train")
        np.testing.assert_array_equal(source.load(np.arange(3)).readable, [True, False, True])

    def test_folders_inside_a_class_are_flattened(self, root):
        for name in ("a/2.png", "a/b/3.png", "a0.png"):
            put(root / "train/cat" / name)
        put(root / "train/cat/.hidden/4.png")
        expected = ["cat/1.png", "cat/a/2.png", "cat/a/b/3.png", "cat/a0.png", "dog/1.png"]
        assert paths(open_source(config(root), "train")) == expected

    def test_names_of_any_kind(self, tmp_path):
        """Of the root, classes and files: also those that are special to globs, and not UTF-8."""
        names = ["Kätzchen 猫", "[a-z]*?", "{x}", "a\nb", "%2F", " ", "a:b", os.fsdecode(b"\xff")]
        root = tmp_path / "[ro]?ot*"
        for level, name in enumerate(names):
            put(root / "train" / name / f"{name}.png", level)
        source = open_source(config(root), "train")
        examples = source.load(np.arange(len(source)))
        assert examples.readable.all()
        assert sorted(examples.images[:, 0, 0, 0].tolist()) == list(range(len(names)))
        printed = {"a\nb": r"a\x0ab", names[-1]: r"\xff"}
        assert sorted(source.class_names) == sorted(printed.get(name, name) for name in names)
        for index, name in enumerate(source.class_names):
            assert source.describe(index) == f"{root}/train/{name}/{name}.png"

    def test_unicode_forms_of_one_class_are_one_class(self, tmp_path):
        composed, decomposed = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))
        assert composed != decomposed
        for level, path in enumerate((f"train/{composed}", f"val/{decomposed}")):
            put(tmp_path / path / "1.png", 10 + level)
            put(tmp_path / path.split("/")[0] / "cat/1.png")
        for level, split in enumerate(("train", "val")):
            source = open_source(config(tmp_path), split)
            assert source.class_names == ("cat", composed)
            assert source.load(np.array([1])).images[0, 0, 0, 0] == 10 + level
        (tmp_path / "synset_words.txt").write_text(f"{decomposed} sword\n")
        assert open_source(config(tmp_path), "val").classes.labels == ("cat", "sword")
        put(tmp_path / "val" / composed / "2.png")
        if len(list((tmp_path / "val").iterdir())) == 3:  # the file system keeps both
            with pytest.raises(InputError, match=r"val.*NFC"):
                open_source(config(tmp_path), "val")

    def test_class_without_images_keeps_its_index(self, root):
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

    def test_linked_split_class_and_image(self, root, tmp_path_factory):
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

    def test_a_broken_link_is_unreadable(self, root):
        (root / "train/cat/2.png").symlink_to(root / "gone.png")
        source = open_source(config(root), "train")
        np.testing.assert_array_equal(source.load(np.arange(3)).readable, [True, False, True])

    def test_a_link_to_itself_is_skipped(self, root):
        (root / "train/cat/knot").symlink_to("knot")
        assert paths(open_source(config(root), "train")) == ["cat/1.png", "dog/1.png"]


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "held_out"),
        [
            ("train", "val"),
            ("train", "valid"),
            ("training", "validation"),
            ("Training", "Testing"),
            ("train_images", "test_images"),
            ("training_set", "test_set"),
            ("Train Data", "validation-set"),
        ],
    )
    @pytest.mark.parametrize("requested", ["val", "validation"])
    def test_aliases_in_any_case(self, tmp_path, train, held_out, requested):
        for name in ("cat", "dog"):
            put(tmp_path / train / name / "1.png")
            put(tmp_path / held_out / name / "2.png")
        assert open_source(config(tmp_path), "train").folder == tmp_path / train
        assert open_source(config(tmp_path), requested).folder == tmp_path / held_out

    def test_nearest_name_wins(self, root):
        for split in ("Validation", "test"):
            put(root / split / "cat" / "1.png")
        for requested, found in [("val", "val"), ("validation", "Validation"), ("test", "test")]:
            assert open_source(config(root), requested).folder == root / found

    def test_exact_case_wins(self, root):
        put(root / "VAL/cat/1.png")  # the same folder where the file system ignores case
        assert open_source(config(root), "val").folder == root / "val"

    def test_validation_comes_before_test(self, root):
        put(root / "test/cat/1.png")
        assert open_source(config(root), "validation").folder == root / "val"

    def test_val_is_not_taken_for_test(self, root):
        with pytest.raises(InputError, match="'test'"):
            open_source(config(root), "test")

    def test_ambiguity_is_refused(self, root):
        put(root / "valid/cat/1.png")
        with pytest.raises(InputError, match=r"val, valid.*data\.eval_split"):
            open_source(config(root), "validation")

    def test_any_other_name_is_taken_literally(self, root):
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
        with pytest.raises(InputError, match=r"val.*'emu'"):
            open_source(config(root), "val")


def put_classes(root: Path, count: int = 20) -> Path:
    """Fills a root with class folders."""
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
        for source in (train, val):  # images and labels still belong together
            examples = source.load(np.arange(len(source)))
            levels = [int(Path(path).stem) for path in paths(source)]
            np.testing.assert_array_equal(examples.images[:, 0, 0, 0], levels)
            found = [source.class_names[label] for label in examples.labels]
            assert found == [path.split("/")[0] for path in paths(source)]

    def test_another_image_moves_at_most_one(self, tmp_path):
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

    def test_the_root_itself_as_a_split(self, tmp_path):
        put_classes(tmp_path)
        put(tmp_path / "train" / "1.png")  # a class of trains
        whole = config(tmp_path, train_split=".[:50%]")
        assert open_source(whole, ".").class_names == ("cat", "dog", "emu", "train")
        assert len(open_source(whole, ".[:50%]")) == 30

    @pytest.mark.parametrize("wrong", ["a/train/cat", "a/val/cat"])
    def test_folders_above_the_right_root_are_refused(self, tmp_path, wrong):
        put(tmp_path / wrong / "1.png")
        put(tmp_path / "b/cat/1.png")
        with pytest.raises(InputError, match="'train'"):
            open_source(config(tmp_path, holdout=0.1), "train")


def test_labels_come_from_the_class_table_in_the_root(root):
    (root / "synset_words.txt").write_text("dog hound, Canis\nemu bird\n")
    for split in ("train", "val", "train[:1]"):
        assert open_source(config(root), split).classes.labels == ("cat", "hound, Canis")


def remove_images(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.unlink()


def flatten(root: Path) -> None:
    for path in list(root.glob("*/*/*.png")):
        path.rename(path.parents[1] / f"{path.parent.name}.png")
        path.parent.rmdir()


class TestErrors:
    @pytest.mark.parametrize(
        "spoil",
        [remove_images, flatten, lambda root: (root / "train").rename(root / "images")],
    )
    def test_the_message_shows_the_layout(self, root, spoil):
        spoil(root)
        with pytest.raises(InputError, match="train") as caught:
            open_source(config(root), "train")
        text = str(caught.value)
        assert "\n" not in text
        assert f"{root}/train/CLASS/IMAGE.jpg" in text

    @pytest.mark.parametrize("name", ["nowhere", "train/cat/1.png"])
    def test_a_root_that_is_not_a_folder(self, root, name):
        with pytest.raises(InputError, match=str(root / name)):
            open_source(config(root / name), "train")

    @pytest.mark.parametrize(
        "folders",
        [
            ("seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_test/dog"),
            ("images/a", "annotations/a"),
            ("train/images", "train/labels", "val/images"),
            ("my train data/cat", "my-val-data/cat", "docs"),
        ],
    )
    def test_splits_and_side_files_are_not_taken_for_classes(self, tmp_path, folders):
        for folder in folders:
            put(tmp_path / folder / "1.png")
        with pytest.raises(InputError, match=r"data\.train_split"):
            open_source(config(tmp_path), "train")

    def test_folders_of_unusual_splits_can_be_named(self, tmp_path):
        for split in ("seg_train/seg_train", "seg_test/seg_test"):
            for name in ("cat", "dog"):
                put(tmp_path / split / name / "1.png")
        options = config(
            tmp_path, train_split="seg_train/seg_train", eval_split="seg_test/seg_test"
        )
        train, held_out = open_splits(options)
        assert train.class_names == held_out.class_names == ("cat", "dog")

    def test_some_classes_may_be_named_like_splits(self, tmp_path):
        put_classes(tmp_path, count=2)
        put(tmp_path / "test tube/1.png")
        assert "test tube" in open_source(config(tmp_path), "train").class_names

    def test_one_image_of_each_class_cannot_be_held_out(self, tmp_path):
        put_classes(tmp_path, count=1)
        with pytest.raises(InputError, match="'val'"):
            open_splits(config(tmp_path, eval_split="val"))

    @pytest.mark.parametrize("part", ["[:0%]", "[:0]", "[90%:10%]", "[7:]"])
    def test_an_empty_part_of_a_split(self, root, part):
        with pytest.raises(InputError, match="empty"):
            open_splits(config(root, train_split=f"train{part}"))

    def test_no_root(self):
        with pytest.raises(InputError, match=r"data\.root"):
            open_source(config(None), "train")


class TestClassCounts:
    def test_they_are_logged(self, root, caplog):
        put(root / "train/dog/2.png")
        with caplog.at_level("INFO", logger="alexnet_jax"):
            open_splits(config(root, eval_split="val"))
        train, held_out = caplog.messages
        assert "3 images of 2 classes: cat (1), dog (2)" in train
        assert "2 images of 2 classes: cat (1), dog (1)" in held_out

    def test_the_first_of_many_classes_are_logged(self, tmp_path, caplog):
        for number in range(30):
            for image in range(2):
                put(tmp_path / f"c{number:02}" / f"{image}.png")
        with caplog.at_level("INFO", logger="alexnet_jax"):
            open_splits(config(tmp_path))
        assert caplog.messages[-1].endswith("c08 (1), c09 (1), 20 more.")

    def test_a_training_class_without_images_is_an_error_unless_allowed(self, root, caplog):
        (root / "train/ape").mkdir()
        with pytest.raises(InputError, match=r"'ape'.*data\.allow_empty_classes"):
            open_splits(config(root, eval_split="val"))
        caplog.clear()
        train, held_out = open_splits(config(root, eval_split="val", allow_empty_classes=True))
        assert train.class_names == held_out.class_names == ("ape", "cat", "dog")
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2

    def test_an_evaluation_class_without_images_is_a_warning(self, root, caplog):
        (root / "val/cat/1.png").unlink()
        open_splits(config(root, eval_split="val"))
        (message,) = caplog.messages
        assert "'cat'" in message

    def test_one_class_is_an_error(self, root):
        (root / "train/dog/1.png").unlink()
        (root / "train/dog").rmdir()
        (root / "val/dog/1.png").unlink()
        (root / "val/dog").rmdir()
        with pytest.raises(InputError, match=r"'cat'.*data\.root"):
            open_splits(config(root, eval_split="val"))


class TestReading:
    def test_images_come_in_the_order_requested(self, root):
        for level in (10, 20, 30):
            put(root / f"train/dog/{level}.png", level)
        source = open_source(config(root), "train")
        examples = source.load(np.array([4, 0, 3, 4]))
        assert examples.images.shape == (4, *source.image_shape) == (4, 8, 8, 3)
        assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(examples.images[:, 0, 0, 0], [30, 0, 20, 30])
        np.testing.assert_array_equal(examples.labels, [1, 0, 1, 1])
        assert source.describe(4) == f"{root}/train/dog/30.png"

    def test_broken_images_are_zeros_and_unreadable(self, root):
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
    with zipfile.ZipFile(archive) as archived:
        for split, count in (("train", 3), ("val", 2)):
            for wnid in ("n01443537", "n02123045"):
                names = [n for n in archived.namelist() if f"{split}/{wnid}/" in f"/{n}"]
                names = [name for name in names if name.endswith(".JPEG")][:count]
                assert len(names) == count
                for name in names:
                    target = tmp_path / split / wnid / Path(name).name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archived.read(name))
    for split, count in (("train", 6), ("validation", 4)):
        source = open_source(config(tmp_path, image_size=128), split)
        examples = source.load(np.arange(len(source)))
        assert source.class_names == ("n01443537", "n02123045")
        assert examples.images.shape == (count, 128, 128, 3)
        assert examples.readable.all()
        assert (examples.images.std(axis=(1, 2, 3)) > 5).all()  # not blank
