"""What job predict writes, draws and prints: the most probable classes of unlabeled images."""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.source import Source
from alexnet_jax.runtime.files import partial_folder

IMAGES_ON_A_PAGE = 20
ROWS_PRINTED, IMAGES_IN_FULL = 20, 4
ADVICE = "Free space there, or set another folder with --config.predict.output=DIR."
_FILES = ("predictions.jsonl", "predictions.csv", "predictions.png", "frames.png")


@dataclasses.dataclass(frozen=True)
class Answers:
    """The most probable classes of some images, in descending order.

    Attributes:
      source: the images.
      outputs: the classes of the model.
      classes: int32[images, most].
      probabilities: float32[images, most]; NaN where the image is unreadable.
      unreadable: why, by the index of the image.
    """

    source: Source
    outputs: ClassTable
    classes: np.ndarray
    probabilities: np.ndarray
    unreadable: Mapping[int, str]

    def of(self, index: int, most: int) -> list[tuple[str, str, float]]:
        """Returns name, label and probability of the most probable classes of an image."""
        return [
            (self.outputs.ids[label], self.outputs.labels[label], float(f"{share:.6g}"))
            for label, share in zip(
                self.classes[index, :most], self.probabilities[index, :most], strict=True
            )
        ]


@dataclasses.dataclass(frozen=True)
class Report:
    """The files of the predictions.

    Attributes:
      folder: where they are written.
      top: number of classes listed for each image.
      frame_numbers: of images that are frames of a video; otherwise None.
      footer: names the model in figures.
    """

    folder: Path
    top: int
    frame_numbers: Sequence[int] | None
    footer: str

    def write(self, answers: Answers, console: Console) -> None:
        """Prints the first answers and writes all files or none.

        Raises:
          InputError: they cannot be written.
        """
        with partial_folder(self.folder, ADVICE) as partial:
            _write_jsonl(partial / "predictions.jsonl", answers, self.top)
            _write_csv(partial / "predictions.csv", answers, self.top)
            console.print(_table(answers, self.top))
            self._draw(partial, answers)
            for name in _FILES:
                (self.folder / name).unlink(missing_ok=True)
            for path in partial.iterdir():
                path.replace(self.folder / path.name)
        files = [name for name in _FILES if (self.folder / name).exists()]
        console.print(f"{self.folder}: {', '.join(files)}", markup=False, soft_wrap=True)

    def _draw(self, folder: Path, answers: Answers) -> None:
        """Draws a page of the first images, and the classes of frames over time."""
        readable = np.setdiff1d(np.arange(len(answers.source)), list(answers.unreadable))
        if not len(readable):
            return
        from alexnet_jax.plots import style  # matplotlib is slow to import

        page = _page(answers, readable, self.top)
        style.save(page, folder / "predictions.png", self.footer)
        if self.frame_numbers is not None:
            style.save(_strip(answers, self.frame_numbers), folder / "frames.png", self.footer)


def frame_numbers(paths: Sequence[Path]) -> list[int] | None:
    """Returns the numbers at the end of the names of a video's frames.

    Returns None unless the files are in one folder, their names differ only in that number, and
    the numbers rise in equal steps.
    """
    found = [re.fullmatch(r"(.*?)(\d{1,18})", path.stem) for path in paths]
    named = [(path.parent, match[1]) for path, match in zip(paths, found, strict=True) if match]
    numbers = [int(match[2]) for match in found if match]
    steps = set(np.diff(numbers).tolist())
    alike = len(named) == len(paths) > 2 and len(set(named)) == len(steps) == 1
    return numbers if alike and min(steps) > 0 else None


def _lines(answers: Answers, most: int) -> Iterator[tuple[str, str | None, Any]]:
    """Yields for each image its file, why it is unreadable or None, and its classes."""
    for index in range(len(answers.source)):
        why = answers.unreadable.get(index)
        classes = [] if why is not None else answers.of(index, most)
        yield answers.source.describe(index), why, classes


def _write_jsonl(path: Path, answers: Answers, top: int) -> None:
    """Writes a JSON object for each image."""
    with path.open("w", encoding="utf-8") as file:
        for image, why, classes in _lines(answers, top):
            line: dict[str, Any] = {"image": image}
            if why is None:
                keys = ("class", "label", "probability")
                line["classes"] = [dict(zip(keys, values, strict=True)) for values in classes]
            else:
                line["error"] = why
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_csv(path: Path, answers: Answers, top: int) -> None:
    """Writes a line for each image; the cells of an unreadable one are empty."""
    ranks = range(1, min(top, answers.classes.shape[1]) + 1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [(f"class_{rank}", f"label_{rank}", f"p_{rank}") for rank in ranks]
        writer.writerow(["image", *sum(columns, ())])
        for image, _, classes in _lines(answers, top):
            cells = [cell for values in classes for cell in values]
            writer.writerow([image, *cells, *[""] * (3 * len(ranks) - len(cells))])


def _short(label: str) -> str:
    """Returns the first of several synonyms, as in 'tabby, tabby cat'."""
    return label.partition(",")[0]


def _table(answers: Answers, top: int) -> Table:
    """Returns all classes listed for a few images, or the most probable of the first of many."""
    count, names = len(answers.source), _base_names(answers.source)
    in_full = count <= IMAGES_IN_FULL
    table = Table("image", "class", "probability", box=box.SIMPLE, show_edge=False)
    table.columns[2].justify = "right"
    for index, name in zip(range(ROWS_PRINTED), names, strict=False):
        if index in answers.unreadable:
            table.add_row(Text(name), "unreadable", "")
            continue
        for rank, (_, label, share) in enumerate(answers.of(index, top if in_full else 1)):
            table.add_row(Text("" if rank else name), Text(_short(label)), f"{share:.1%}")
    if count > ROWS_PRINTED:
        table.caption = f"{count - ROWS_PRINTED:,} more images are in the files."
        table.caption_justify = "left"
    return table


def _base_names(source: Source) -> Iterator[str]:
    return (Path(source.describe(index)).name for index in range(len(source)))


def _page(answers: Answers, readable: np.ndarray, top: int) -> Any:
    """Draws the first of some images with bars of their most probable classes."""
    from alexnet_jax.plots.pages import MOST_BARS, Bar, image_grid

    rows = readable[:IMAGES_ON_A_PAGE]
    names = [Path(answers.source.describe(int(row))).name for row in rows]
    count = len(readable)
    return image_grid(
        answers.source.load(rows).images,
        [name if len(name) <= 24 else f"…{name[-23:]}" for name in names],
        [
            [
                Bar(_short(label), share, None)
                for _, label, share in answers.of(int(row), min(top, MOST_BARS))
            ]
            for row in rows
        ],
        title=f"The first {len(rows)} of {count:,} images" if len(rows) < count else "",
    )


def _strip(answers: Answers, numbers: Sequence[int]) -> Any:
    """Draws the classes of frames over time; those not among an image's best count as zero."""
    from alexnet_jax.plots import frames

    rows = np.arange(len(numbers))[:, None]
    dense = np.zeros((len(numbers), len(answers.outputs.labels)), np.float32)
    dense[rows, answers.classes] = answers.probabilities
    dense[np.isnan(answers.probabilities[:, 0])] = np.nan
    shown = frames.main_classes(dense)
    return frames.class_strip(
        answers.source.load(frames.shown_frames(len(numbers))).images,
        numbers,
        dense[:, shown],
        [_short(answers.outputs.labels[label]) for label in shown],
    )
