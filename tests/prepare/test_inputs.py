"""Names, labels and bytes of images of every layout."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from options import data_options

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import (
    UNLABELED,
    InputOptions,
    Inputs,
    fingerprint,
    name_of,
    open_inputs,
)

PATTERN = r"(?:.*/)?(.+?)\.\d+\.\w+"


def options(kind: str, root: Path, *splits: str, **changes: object) -> InputOptions:
    keys = {"class_table": None, "columns": (), "pattern": PATTERN}
    data = data_options(kind, root, channels=1, name="numbers")
    return InputOptions(data, splits, **keys | changes)


def put(path: Path, text: str = "") -> None:
    """Writes a file that contains its own name, or a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or path.name)


def listed(inputs: Inputs, split: str) -> list[tuple[str, int]]:
    """Returns (name, label) of a split, each image having been read."""
    found = []
    for index, (data, label) in enumerate(inputs[split].read(np.arange(len(inputs[split])))):
        name = name_of(inputs[split], index)
        assert data.decode() == os.path.basename(name)
        found.append((name, label))
    return found


def classes_of(inputs: Inputs) -> ClassTable:
    (table,) = {source.classes for source in inputs.values()}
    return table


class TestFolder:
    def test_splits_and_classes(self, tmp_path: Path) -> None:
        for name in ("train/n2/b.jpg", "train/n2/a.jpg", "train/n1/c.png", "val/n2/d.jpg"):
            put(tmp_path / name)
        put(tmp_path / "synset_words.txt", "n0 zero\nn2 two, twice\n")
        inputs = open_inputs(options("folder", tmp_path, "train", "validation=val"))
        assert classes_of(inputs) == (("n1", "n2"), ("n1", "two, twice"))
        assert listed(inputs, "train") == [
            ("train/n1/c.png", 0),
            ("train/n2/a.jpg", 1),
            ("train/n2/b.jpg", 1),
        ]
        assert listed(inputs, "validation") == [("val/n2/d.jpg", 1)]

    def test_one_class(self, tmp_path: Path) -> None:
        put(tmp_path / "train/n1/a.jpg")
        inputs = open_inputs(options("folder", tmp_path, "train"))
        assert classes_of(inputs).ids == ("n1",)
        assert listed(inputs, "train") == [("train/n1/a.jpg", 0)]

    def test_class_folders_alone(self, tmp_path: Path) -> None:
        for number in range(10):
            put(tmp_path / f"n1/{number}.jpg")
            put(tmp_path / f"n2/{number}.jpg")
        inputs = open_inputs(options("folder", tmp_path, "train", "val"))
        assert {split: len(images) for split, images in inputs.items()} == {
            "train": 18,
            "val": 2,
        }
        assert {label for _, label in listed(inputs, "val")} == {0, 1}
        names = [name for split in ("train", "val") for name, _ in listed(inputs, split)]
        assert sorted(names) == sorted(f"n{n}/{i}.jpg" for n in (1, 2) for i in range(10))
        parts = open_inputs(options("folder", tmp_path, "train=.[:80%]", "val=.[80%:]"))
        assert [len(listed(parts, split)) for split in ("train", "val")] == [16, 4]
        for name, label in listed(parts, "val"):
            assert name.startswith(f"n{label + 1}/")

    def test_no_folder(self, tmp_path: Path) -> None:
        for kind in ("folder", "list", "pattern", "ilsvrc"):
            with pytest.raises(InputError, match=r"prepare\.root"):
                open_inputs(options(kind, tmp_path / "none", "train"))
        with pytest.raises(InputError, match="'train'"):
            open_inputs(options("folder", tmp_path, "train"))


def put_images(root: Path, *names: str) -> None:
    for name in names:
        put(root / name)


class TestList:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("t.txt", "a.jpg n2\nb c.jpg n1\n"),
            ("t.txt", "a.jpg,n2\r\nb c.jpg, n1\r\n"),
            ("t.txt", "a.jpg\tn2\n\nb c.jpg\tn1"),
            ("t.txt", "n2\ta.jpg\nn1\tb c.jpg\n"),
            ("t.txt", "filename label\na.jpg n2\nb c.jpg n1\n"),
            ("t.lst", "0\tn2\ta.jpg\n1\tn1\tb c.jpg\n"),
            ("t.csv", 'license,label,file\n"by, 2.0",n2,a.jpg\nother,n1,b c.jpg\n'),
            ("t.csv", "a.jpg,n2\nb c.jpg,n1\n"),
            ("t.csv", "\ufeffFilename,Class\na.jpg,n2\nb c.jpg,n1\n"),
            ("t.tsv", "path\twnid\na.jpg\tn2\nb c.jpg\tn1\n"),
            ("t.tsv", "\tpath\tbreed\n5\ta.jpg\tn2\n3\tb c.jpg\tn1\n"),
            ("t.csv", "id;path;class\n1;a.jpg;n2\n2;b c.jpg;n1\n"),
            ("t.csv", "id,breed\na,n2\nb c,n1\n"),  # as Kaggle's, without extension
            ("t.csv", "image,n1,n2,n3\na,0,1,0\nb c,1,0,0\n"),
            ("t.csv", "file,n1,n2\na.jpg,0.0,1.0\nb c.jpg,1.0,0.0\n"),
            ("t.csv", "Bild,Art\na.jpg,n2\nb c.jpg,n1\n"),
        ],
    )
    def test_forms(self, tmp_path: Path, name: str, text: str) -> None:
        put_images(tmp_path, "a.jpg", "b c.jpg")
        (tmp_path / name).write_text(text, encoding="utf-8")
        put(tmp_path / "synset_words.txt", "n1 one\nn2 two\nn3 three\n")
        inputs = open_inputs(options("list", tmp_path, f"train={name}"))
        assert classes_of(inputs) == (("n1", "n2", "n3"), ("one", "two", "three"))
        assert listed(inputs, "train") == [("a.jpg", 1), ("b c.jpg", 0)]

    def test_no_labels(self, tmp_path: Path) -> None:
        put_images(tmp_path, "a.jpg", "my dog.jpg", "x/c.JPEG")
        put(tmp_path / "train.txt", "a.jpg dog\nx/c.JPEG cat\n")
        put(tmp_path / "test.txt", "x/c.JPEG\nmy dog.jpg\n")
        inputs = open_inputs(options("list", tmp_path, "train=train.txt", "test=test.txt"))
        assert classes_of(inputs).ids == ("cat", "dog")
        assert listed(inputs, "train") == [("a.jpg", 1), ("x/c.JPEG", 0)]
        assert listed(inputs, "test") == [("x/c.JPEG", UNLABELED), ("my dog.jpg", UNLABELED)]
        with pytest.raises(InputError, match=r"prepare\.class_table"):
            open_inputs(options("list", tmp_path, "test=test.txt"))

    def test_columns_by_name_and_by_number(self, tmp_path: Path) -> None:
        put_images(tmp_path, "a.jpg")
        put(tmp_path / "t.csv", "label,Bild,Art\nx,a.jpg,dog\n")
        put(tmp_path / "t.txt", "x,a.jpg,dog\n")
        for name, columns in (("t.csv", ("Bild", "Art")), ("t.txt", ("2", "3"))):
            inputs = open_inputs(options("list", tmp_path, f"train={name}", columns=columns))
            assert classes_of(inputs).ids == ("dog",)
        with pytest.raises(InputError, match=r"label, Bild, Art.*prepare\.columns"):
            open_inputs(options("list", tmp_path, "train=t.csv", columns=("Bild", "Klasse")))
        put(tmp_path / "synset_words.txt", "dog\n")
        inputs = open_inputs(options("list", tmp_path, "train=t.csv", columns=("Bild",)))
        assert listed(inputs, "train") == [("a.jpg", UNLABELED)]

    @pytest.mark.parametrize(
        ("labels", "table", "ids", "indices"),
        [
            ("1 0 3", 0, "0 1 3", [1, 0, 2]),
            ("1.0 0.0 3.000", 0, "0 1 3", [1, 0, 2]),
            ("10 9 2000000000", 0, "9 10 2000000000", [1, 0, 2]),
            ("1 0 2", 3, "n0 n1 n2", [1, 0, 2]),
            ("1 2 3", 3, "n0 n1 n2", [0, 1, 2]),  # counted from 1
            ("1 2 2", 3, "n0 n1 n2", [1, 2, 2]),
            ("n1 n0 n1", 3, "n0 n1 n2", [1, 0, 1]),
        ],
    )
    def test_numbers(
        self, tmp_path: Path, labels: str, table: int, ids: str, indices: list[int]
    ) -> None:
        lines = [f"{number}.jpg {label}" for number, label in enumerate(labels.split())]
        put(tmp_path / "t.txt", "\n".join(lines))
        if table:
            put(tmp_path / "synset_words.txt", "".join(f"n{i} word\n" for i in range(table)))
        inputs = open_inputs(options("list", tmp_path, "train=t.txt"))
        assert classes_of(inputs).ids == tuple(ids.split())
        assert inputs["train"].labels.tolist() == indices

    def test_assumptions_are_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        put(tmp_path / "t.csv", "id,file,breed\n7,a.jpg,2\n5,b.jpg,1\n")
        put(tmp_path / "synset_words.txt", "n1\nn2\n")
        open_inputs(options("list", tmp_path, "train=t.csv"))
        assert "breed" in caplog.text
        assert "from 1" in caplog.text

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("t.txt", "a.jpg 0\nb.jpg 3\n", r"t\.txt, line 2: .*'3' of b\.jpg"),
            ("t.csv", "file,label\na.jpg,9\n", r"t\.csv, line 2: .*'9' of a\.jpg"),
            ("t.txt", "a.jpg n7\n", r"line 1: .*'n7' of a\.jpg"),
            ("t.txt", "a.jpg -1\nb.jpg 1\n", r"line 1: .*'-1' of a\.jpg"),
            ("t.txt", "dog\n", r"prepare\.columns"),
            ("t.txt", "", "no image"),
            ("t.csv", "", "no image"),
            ("t.txt", "a.jpg n1\nb.jpg\n", "line 2"),
            ("t.csv", "file,label\na.jpg,n1\nb.jpg,\n", r"line 3: b\.jpg"),
            ("t.csv", "file,label\n", "no image"),
            ("t.csv", "a,b\nx,1\n", r"a, b.*prepare\.columns"),
            ("t.csv", "file,breed,color\nx.jpg,n1,red\ny.jpg,n1,red\n", r"prepare\.columns"),
            ("t.csv", "file,n1,n2\nx.jpg,1,1\ny.jpg,0,1\n", r"prepare\.columns"),
            ("t.csv", "file,label\nx.jpg\n", "line 2"),
        ],
    )
    def test_errors(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        put(tmp_path / "synset_words.txt", "n1 one\nn2 two\nn3 three\n")
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            open_inputs(options("list", tmp_path, f"train={name}"))

    @pytest.mark.parametrize("label", ["-1", "9" * 5000])
    def test_numbers_beyond_the_classes(self, tmp_path: Path, label: str) -> None:
        put(tmp_path / "t.txt", f"a.jpg {label}\nb.jpg {label}\n")
        if label == "-1":
            with pytest.raises(InputError, match=r"line 1: .*'-1'"):
                open_inputs(options("list", tmp_path, "train=t.txt"))
        else:  # a name like any other
            inputs = open_inputs(options("list", tmp_path, "train=t.txt"))
            assert classes_of(inputs).ids == (label,)

    def test_a_class_that_training_does_not_have(self, tmp_path: Path) -> None:
        put(tmp_path / "train.txt", "a.jpg 0\nb.jpg 1\n")
        put(tmp_path / "val.txt", "c.jpg 2\n")
        with pytest.raises(InputError, match=r"val\.txt, line 1: .*'2'"):
            open_inputs(options("list", tmp_path, "train=train.txt", "val=val.txt"))

    def test_lists_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_bytes(b"\xff\xfe\xff")
        os.mkfifo(tmp_path / "fifo")
        for name in ("none", "t.txt", "fifo", "."):
            with pytest.raises(InputError, match=str(tmp_path)):
                open_inputs(options("list", tmp_path, f"train={name}"))


class TestPattern:
    def test_cats_and_dogs(self, tmp_path: Path) -> None:
        put_images(tmp_path, "train/dog.0.jpg", "train/cat.10.jpg", "train/more/cat.2.jpg")
        put_images(tmp_path, "test/7.jpg", "train/readme.md", "train/@eaDir/cat.3.jpg")
        inputs = open_inputs(options("pattern", tmp_path, "train", "test"))
        assert classes_of(inputs).ids == ("cat", "dog")
        assert listed(inputs, "train") == [
            ("train/cat.10.jpg", 0),
            ("train/dog.0.jpg", 1),
            ("train/more/cat.2.jpg", 0),
        ]
        assert listed(inputs, "test") == [("test/7.jpg", UNLABELED)]

    def test_own_pattern_in_the_root_itself(self, tmp_path: Path) -> None:
        put_images(tmp_path, "001_Great_Dane.png", "002_Boxer.png")
        given = options("pattern", tmp_path, "train=.", pattern=r"\d+_(.+)\.png")
        assert listed(open_inputs(given), "train") == [
            ("001_Great_Dane.png", 1),
            ("002_Boxer.png", 0),
        ]

    def test_errors(self, tmp_path: Path) -> None:
        put_images(tmp_path, "train/cat.0.jpg", "train/odd.jpg", "test/1.jpg")
        (tmp_path / "val").mkdir()
        for split, message in (
            ("train", r"odd\.jpg.*prepare\.pattern"),
            ("none", r"none.*prepare\.splits"),
            ("val", "'val'"),
            ("test", "no classes"),
        ):
            with pytest.raises(InputError, match=message):
                open_inputs(options("pattern", tmp_path, split))


class Numbers(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images that are no images, but bytes to be recognized."""

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
            path = Path(self.data_dir).parent / f"{number}.image"
            path.write_bytes(b"%d" % number)
            yield number, {"image": str(path), "label": number % 2}


def test_tfds(tmp_path: Path) -> None:
    builder = Numbers(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    inputs = open_inputs(options("tfds", tmp_path, "train=train[:4]", "val=train[4:]"))
    assert classes_of(inputs).ids == ("x", "y")
    read = {split: list(map(tuple, s.read(np.arange(len(s))))) for split, s in inputs.items()}
    assert [len(read[split]) for split in ("train", "val")] == [4, 2]
    together = sorted([*read["train"], *read["val"]])
    assert together == [(b"%d" % number, number % 2) for number in range(6)]


class TestFingerprint:
    def test_changes_with_the_inputs(self, tmp_path: Path) -> None:
        put_images(tmp_path, "a.jpg")
        put(tmp_path / "t.txt", "a.jpg 0\nb.jpg 1\n")
        given = options("list", tmp_path, "train=t.txt")

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

    def test_of_a_source_without_files(self) -> None:
        inputs = open_inputs(options("digits", Path(), "train=train[:90]"))
        seen = fingerprint(inputs)
        assert fingerprint(inputs) == seen
        inputs["train"].source.images[...] += np.uint8(1)
        assert fingerprint(inputs) != seen
