"""Labeled pictures of every layout in one form: names, labels, bytes."""

import os
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import UNLABELED, Inputs, fingerprint, open_inputs


def config(kind: str, root: Path, *splits: str, **keys: object) -> ConfigDict:
    given = {f"prepare.{name}": value for name, value in keys.items()}
    given |= {"prepare.input": kind, "prepare.root": str(root), "prepare.splits": splits}
    tree, mistakes = schema.merge(SCHEMA, given)
    assert not mistakes, mistakes
    return ConfigDict(tree)


def put(path: Path, text: str = "") -> None:
    """Writes a file whose contents are its own name, or a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or path.name)


def listed(inputs: Inputs, split: str) -> list[tuple[str, int]]:
    """Returns (name, label) of a split, each picture having been read."""
    found = []
    for picture in inputs.splits[split]:
        data, label = picture.read()
        assert data.decode() == os.path.basename(picture.name)
        found.append((picture.name, label))
    return found


class TestFolder:
    def test_splits_and_classes(self, tmp_path: Path) -> None:
        for name in ("train/n2/b.jpg", "train/n2/a.jpg", "train/n1/c.png", "val/n2/d.jpg"):
            put(tmp_path / name)
        put(tmp_path / "synset_words.txt", "n0 zero\nn2 two, twice\n")
        inputs = open_inputs(config("folder", tmp_path, "train", "validation=val"))
        assert inputs.classes == (("n1", "n2"), ("n1", "two, twice"))
        assert listed(inputs, "train") == [
            ("train/n1/c.png", 0),
            ("train/n2/a.jpg", 1),
            ("train/n2/b.jpg", 1),
        ]
        assert listed(inputs, "validation") == [("val/n2/d.jpg", 1)]

    def test_one_class(self, tmp_path: Path) -> None:
        put(tmp_path / "train/n1/a.jpg")
        inputs = open_inputs(config("folder", tmp_path, "train"))
        assert inputs.classes.ids == ("n1",)
        assert listed(inputs, "train") == [("train/n1/a.jpg", 0)]

    def test_class_folders_alone(self, tmp_path: Path) -> None:
        for number in range(10):
            put(tmp_path / f"n1/{number}.jpg")
            put(tmp_path / f"n2/{number}.jpg")
        inputs = open_inputs(config("folder", tmp_path, "train", "val"))
        assert {split: len(pictures) for split, pictures in inputs.splits.items()} == {
            "train": 18,
            "val": 2,
        }
        assert {label for _, label in listed(inputs, "val")} == {0, 1}
        names = [name for split in ("train", "val") for name, _ in listed(inputs, split)]
        assert sorted(names) == sorted(f"n{n}/{i}.jpg" for n in (1, 2) for i in range(10))
        parts = open_inputs(config("folder", tmp_path, "train=.[:80%]", "val=.[80%:]"))
        assert [len(listed(parts, split)) for split in ("train", "val")] == [16, 4]
        for name, label in listed(parts, "val"):
            assert name.startswith(f"n{label + 1}/")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"There is no folder .*none: set --config"):
            open_inputs(config("folder", tmp_path / "none", "train"))
        with pytest.raises(InputError, match="has no folder for split 'train'"):
            open_inputs(config("folder", tmp_path, "train"))


class TestList:
    @pytest.mark.parametrize(
        "text", ["a.jpg 1\nb c.jpg 0\n", "a.jpg,1\r\nb c.jpg, 0\r\n", "a.jpg\t1\n\nb c.jpg\t0"]
    )
    def test_numbers(self, tmp_path: Path, text: str) -> None:
        put(tmp_path / "a.jpg")
        put(tmp_path / "b c.jpg")
        put(tmp_path / "train.txt", text)
        inputs = open_inputs(config("list", tmp_path, "train=train.txt"))
        assert inputs.classes.ids == ("0", "1")
        assert listed(inputs, "train") == [("a.jpg", 1), ("b c.jpg", 0)]

    def test_names_and_no_labels(self, tmp_path: Path) -> None:
        for name in ("a.jpg", "my dog.jpg", "x/c.JPEG"):
            put(tmp_path / name)
        put(tmp_path / "train.txt", "a.jpg dog\nx/c.JPEG cat\n")
        put(tmp_path / "test.txt", "my dog.jpg\nx/c.JPEG\n")
        inputs = open_inputs(config("list", tmp_path, "train=train.txt", "test=test.txt"))
        assert inputs.classes.ids == ("cat", "dog")
        assert listed(inputs, "train") == [("a.jpg", 1), ("x/c.JPEG", 0)]
        assert listed(inputs, "test") == [("my dog.jpg", UNLABELED), ("x/c.JPEG", UNLABELED)]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("t.csv", 'license,label,file\n"by, 2.0",n2,a.jpg\nother,n1,b.jpg\n'),
            ("t.csv", "a.jpg,n2\nb.jpg,n1\n"),
            ("t.csv", "\ufeffFilename,Class\na.jpg,n2\nb.jpg,n1\n"),
            ("t.tsv", "path\twnid\na.jpg\tn2\nb.jpg\tn1\n"),
            ("t.csv", "id;path;class\n1;a.jpg;n2\n2;b.jpg;n1\n"),
        ],
    )
    def test_tables(self, tmp_path: Path, name: str, text: str) -> None:
        put(tmp_path / "a.jpg")
        put(tmp_path / "b.jpg")
        (tmp_path / name).write_text(text, encoding="utf-8")
        put(tmp_path / "synset_words.txt", "n1 one\nn2 two\nn3 three\n")
        inputs = open_inputs(config("list", tmp_path, f"train={name}"))
        assert inputs.classes == (("n1", "n2", "n3"), ("one", "two", "three"))
        assert listed(inputs, "train") == [("a.jpg", 1), ("b.jpg", 0)]

    def test_columns_of_any_name(self, tmp_path: Path) -> None:
        put(tmp_path / "a.jpg")
        put(tmp_path / "t.csv", "label,Bild,Art\nx,a.jpg,dog\n")
        given = config("list", tmp_path, "train=t.csv", columns=("Bild", "Art"))
        assert open_inputs(given).classes.ids == ("dog",)
        given = config("list", tmp_path, "train=t.csv", columns=("Bild", "Klasse"))
        with pytest.raises(InputError, match="has no column klasse, but the columns label, bild"):
            open_inputs(given)
        given = config("list", tmp_path, "train=t.csv", columns=("Bild",))
        assert listed(open_inputs(given), "train") == [("a.jpg", UNLABELED)]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("t.txt", "a.jpg 0\nb.jpg 3\n", r"t\.txt, line 2: the label '3' of b\.jpg is none of"),
            ("t.csv", "file,label\na.jpg,9\n", r"t\.csv, row 2: the label '9' of a\.jpg is none"),
            ("t.txt", "a.jpg n7\n", "the label 'n7' of a.jpg is none of the 3 known classes"),
            ("t.txt", "a.jpg -1\n", "the label '-1' of a.jpg is none of"),
            ("t.txt", "dog\n", "line 1: 'dog' is neither 'path label' nor 'path,label'"),
            ("t.txt", "", "names no picture"),
            (
                "t.txt",
                "a.jpg n1\nb.jpg\n",
                r"line 2: b\.jpg has no label, and others .*1 of 2 have",
            ),
            ("t.csv", "file,label\n", "names no picture"),
            ("t.csv", "a,b\nx.jpg,1\n", "has the columns a, b: say which hold path and label"),
            ("t.csv", "file,label\nx.jpg\n", "row 2: has 1 cells where the first has 2"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        put(tmp_path / "synset_words.txt", "n1 one\nn2 two\nn3 three\n")
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            open_inputs(config("list", tmp_path, f"train={name}"))

    def test_a_class_that_training_has_not(self, tmp_path: Path) -> None:
        put(tmp_path / "train.txt", "a.jpg 0\nb.jpg 1\n")
        put(tmp_path / "val.txt", "c.jpg 2\n")
        with pytest.raises(InputError, match=r"val\.txt, line 1: the label '2' .* 0 to 1"):
            open_inputs(config("list", tmp_path, "train=train.txt", "val=val.txt"))

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"train cannot be read \(No such file.*name the list"):
            open_inputs(config("list", tmp_path, "train"))
        (tmp_path / "t.txt").write_bytes(b"\xff\xfe\xff")
        with pytest.raises(InputError, match="is no list of pictures"):
            open_inputs(config("list", tmp_path, "train=t.txt"))


class TestPattern:
    def test_cats_and_dogs(self, tmp_path: Path) -> None:
        for name in ("train/dog.0.jpg", "train/cat.10.jpg", "train/more/cat.2.jpg", "test/7.jpg"):
            put(tmp_path / name)
        put(tmp_path / "train/readme.md")
        inputs = open_inputs(config("pattern", tmp_path, "train", "test"))
        assert inputs.classes.ids == ("cat", "dog")
        assert listed(inputs, "train") == [
            ("train/cat.10.jpg", 0),
            ("train/dog.0.jpg", 1),
            ("train/more/cat.2.jpg", 0),
        ]
        assert listed(inputs, "test") == [("test/7.jpg", UNLABELED)]

    def test_own_pattern_in_the_root_itself(self, tmp_path: Path) -> None:
        put(tmp_path / "001_Great_Dane.png")
        put(tmp_path / "002_Boxer.png")
        given = config("pattern", tmp_path, "train=.", pattern=r"\d+_(.+)\.png")
        assert listed(open_inputs(given), "train") == [
            ("001_Great_Dane.png", 1),
            ("002_Boxer.png", 0),
        ]

    def test_mistakes(self, tmp_path: Path) -> None:
        put(tmp_path / "train/cat.0.jpg")
        put(tmp_path / "train/odd.jpg")
        with pytest.raises(InputError, match=r"The name 'odd\.jpg' in .* does not match"):
            open_inputs(config("pattern", tmp_path, "train"))
        with pytest.raises(InputError, match=r"There is no folder .*val"):
            open_inputs(config("pattern", tmp_path, "val"))
        (tmp_path / "val").mkdir()
        with pytest.raises(InputError, match=r"The split 'val' of .* has no pictures"):
            open_inputs(config("pattern", tmp_path, "val"))


class Words(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures that are no pictures, but bytes to be found again."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["x", "y"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(6):
            path = Path(self.data_dir).parent / f"{number}.picture"
            path.write_bytes(b"%d" % number)
            yield number, {"image": str(path), "label": number % 2}


def test_tfds(tmp_path: Path) -> None:
    builder = Words(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    given = config("tfds", tmp_path, "train=train[:4]", "val=train[4:]")
    given.data.name = "words"
    inputs = open_inputs(given)
    assert inputs.classes.ids == ("x", "y")
    read = {split: [picture.read() for picture in inputs.splits[split]] for split in inputs.splits}
    assert [len(read[split]) for split in ("train", "val")] == [4, 2]
    together = sorted([*read["train"], *read["val"]])
    assert together == [(b"%d" % number, number % 2) for number in range(6)]


class TestFingerprint:
    def test_tells_changed_inputs(self, tmp_path: Path) -> None:
        put(tmp_path / "a.jpg")
        put(tmp_path / "t.txt", "a.jpg 0\nb.jpg 1\n")
        given = config("list", tmp_path, "train=t.txt")

        def found() -> str:
            return fingerprint(open_inputs(given))

        seen = [found()]
        assert found() == seen[0]
        put(tmp_path / "b.jpg")  # was missing
        seen.append(found())
        put(tmp_path / "b.jpg", "longer than before")
        seen.append(found())
        os.utime(tmp_path / "b.jpg", (1, 1))
        seen.append(found())
        put(tmp_path / "t.txt", "a.jpg 1\nb.jpg 0\n")
        seen.append(found())
        put(tmp_path / "synset_words.txt", "n1 one\nn2 two\n")
        seen.append(found())
        assert len(set(seen)) == 6
