"""Image files that a command line names: how they are listed, ordered and read."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.image_files import ImageFiles, list_image_files
from alexnet_jax.data.images import RESIZERS
from alexnet_jax.data.pipeline import EvaluationBatches
from alexnet_jax.errors import InputError

NAMES = ("frame1.png", "frame2.png", "frame10.png", "more/a.jpg", "more/deep/b.PNG", "x[1].png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photographs"
    rng = np.random.default_rng(0)
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8)).save(root / name)
    (root / "notes.md").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    (root / "Thumbs.db").write_bytes(b"")
    return root


def names(root: Path, *arguments: object) -> list[str]:
    return [os.path.relpath(path, root) for path in list_image_files([*map(str, arguments)])]


class TestListing:
    def test_a_folder_in_natural_order(self, folder: Path) -> None:
        assert names(folder, folder) == list(NAMES)

    def test_the_current_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder / "more")
        assert names(Path.cwd(), ".", "./", "deep/..") == ["a.jpg", "deep/b.PNG"] * 3
        assert names(folder, "..") == names(folder, folder) == list(NAMES)
        assert list_image_files(["a.jpg", "*.jpg"]) == [Path("a.jpg")] * 2

    def test_a_link_to_a_folder(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(folder)
        (folder / "more" / "loop").symlink_to(tmp_path)
        assert names(tmp_path / "link", tmp_path / "link") == list(NAMES)

    def test_globs(self, folder: Path) -> None:
        assert names(folder, folder / "frame*") == list(NAMES[:3])
        assert names(folder, folder / "**" / "*.[pP]*") == [
            name for name in NAMES if name != "more/a.jpg"
        ]
        assert names(folder, folder / "*") == [*NAMES[:3], NAMES[-1]]  # only images

    def test_files_are_taken_as_they_are_in_the_order_given(self, folder: Path) -> None:
        assert names(folder, folder / "x[1].png", folder / "frame2.png") == [
            "x[1].png",
            "frame2.png",
        ]
        image = (folder / "frame1.png").rename(folder / "without_extension")
        assert list_image_files([image]) == [image]

    def test_the_home_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        assert names(folder, "~/frame1.png") == ["frame1.png"]
        assert names(folder, "~/frame*") == list(NAMES[:3])

    def test_a_list(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Paths are relative to the list or to the current folder; missing files stay in it."""
        monkeypatch.chdir(folder / "more")
        listed = folder / "list.txt"
        lines = ["frame10.png", "", f"  {folder}/frame2.png ", "a.jpg", "missing.png"]
        listed.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
        found = list_image_files([listed])
        assert [path.name for path in found] == [*NAMES[2:0:-1], "a.jpg", "missing.png"]
        source = ImageFiles(found, (16, 16, 3), "crop")
        assert source.load(np.arange(4)).readable.tolist() == [True, True, True, False]

    def test_names_in_other_encodings(self, folder: Path) -> None:
        name = os.fsdecode(b"\xff \xc3\xa9.png")
        (folder / "frame1.png").rename(folder / name)
        (folder / "list.txt").write_bytes(os.fsencode(name))
        for argument in (folder, folder / "list.txt", folder / "*.png", folder / name):
            assert folder / name in list_image_files([argument])

    def test_what_names_no_images(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        (folder / "list.txt").write_text("no.png\n")
        (folder / "blank.txt").write_text("\n")
        os.mkfifo(folder / "pipe.png")
        problems = {
            "empty": "has no images",
            "list.txt": "names no file",
            "blank.txt": "names no file",
            "*.gif": "matches no images",
            "pipe.png": "no file",
            "frame3.png": "no file",
            "a\0b": "no file",
        }
        for name, problem in problems.items():
            with pytest.raises(InputError, match=problem):
                list_image_files([folder / "frame1.png", folder / name])
        for arguments in ([], [""]):
            with pytest.raises(InputError):
                list_image_files(arguments)


class TestReading:
    @pytest.mark.parametrize("resize", RESIZERS)
    def test_as_data_resize_says(self, folder: Path, resize: str) -> None:
        paths = [path for path in list_image_files([folder]) if path.suffix == ".png"]
        source = pickle.loads(pickle.dumps(ImageFiles(paths, (16, 16, 3), resize)))
        assert len(source) == len(paths) == 4
        examples = source.load(np.array([2, 0]))
        assert examples.readable.all()
        assert examples.labels.tolist() == [0, 0]
        for image, path in zip(examples.images, (paths[2], paths[0]), strict=True):
            expected = RESIZERS[resize](np.asarray(Image.open(path)), 16)
            np.testing.assert_array_equal(image, expected)

    def test_a_damaged_file_is_named(self, folder: Path) -> None:
        broken = folder / "frame2.png"
        broken.write_bytes(broken.read_bytes()[:60])
        source = ImageFiles(list_image_files([folder]), (16, 16, 3), "crop")
        unreadable = EvaluationBatches(source, 8)[0].unreadable
        assert [source.describe(index) for index in unreadable] == [str(broken)]


@pytest.mark.parametrize("kind", ["avif", "dds", "ico", "jp2", "pcx", "sgi", "tga"])
def test_every_format_of_pillow_is_read(kind: str, tmp_path: Path) -> None:
    """Also those that datasets are not searched for; lossy formats stay close to the pixels."""
    pixels = np.repeat(np.repeat(np.arange(0, 256, 16, np.uint8).reshape(4, 4, 1), 8, 0), 8, 1)
    pixels = np.concatenate([pixels, 255 - pixels, pixels // 2], axis=2)
    Image.fromarray(pixels).save(tmp_path / f"image.{kind}", sizes=[(32, 32)])
    source = ImageFiles(list_image_files([str(tmp_path)]), (32, 32, 3), "crop")
    examples = source.load(np.array([0]))
    assert examples.readable.all()
    assert np.abs(examples.images[0].astype(int) - pixels).mean() < 6


def test_a_format_that_starts_a_program_is_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "image.eps")
    with pytest.raises(InputError, match="image"):
        list_image_files([str(tmp_path)])
    source = ImageFiles(list_image_files([str(tmp_path / "image.eps")]), (32, 32, 3), "crop")
    assert not source.load(np.array([0])).readable.any()
