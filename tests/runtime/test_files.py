"""Folders of files that are complete or absent."""

from pathlib import Path

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.runtime.files import partial_folder


def test_what_stays_empty_is_deleted_if_it_was_created(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with partial_folder(tmp_path / "mine" / "a" / "b", "Free space.") as partial:
        (partial / "file").write_text("not complete")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_files_moved_out_are_kept(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "a", "Free space.") as partial:
        (partial / "file").write_text("complete")
        (partial / "file").replace(tmp_path / "a" / "file")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_an_error_names_the_folder_and_the_advice(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with (
        pytest.raises(InputError, match=r"/b cannot be written: .* Free space\."),
        partial_folder(tmp_path / "a" / "b", "Free space."),
    ):
        pass
