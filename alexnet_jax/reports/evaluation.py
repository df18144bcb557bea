"""The report of an evaluation: numbers as JSON and CSV, figures, and a table on the console."""

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.source import Source
from alexnet_jax.evaluation import measures, tables
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.runtime.files import partial_folder, write_atomically
from alexnet_jax.runtime.workdir import Workdir

_log = logging.getLogger(__name__)

MISTAKES_ON_A_PAGE = 20
_LAST = "evaluation.json"  # written last: the files next to it are complete
_COLUMNS = {
    "examples": "{count:,}",
    "loss": "{loss:.4f}",
    "top-1": "{top1:.2%} ± {top1_standard_error:.2%}",
    "top-5": "{top5:.2%} ± {top5_standard_error:.2%}",
    "ECE": "{expected_calibration_error:.2%}",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """The files of one evaluation, in `evaluation/SPLIT_VIEWS/` of a run's workdir.

    Attributes:
      workdir: of the run.
      metadata: what was evaluated: checkpoint, split, views, scales; all of it is written to the
        JSON.
      source: the split.
      outputs: the names of the model's outputs.
    """

    workdir: Workdir
    metadata: dict[str, Any]
    source: Source
    outputs: ClassTable

    @property
    def folder(self) -> Path:
        """Where the files are: of 'val[:90%]' by ten crops in 'val_-90%_ten_crops'."""
        split = re.sub(r"[^\w%-]+", "_", self.metadata["split"].replace(":", "-")).strip("_")
        name = f"{split}_{_views_of(self.metadata).replace(' ', '_')}"
        return self.workdir.path / "evaluation" / name

    def check_writable(self) -> None:
        """Raises InputError where the files cannot be written."""
        with self._partial_folder():
            pass

    def write(self, predictions: Predictions, console: Console) -> None:
        """Writes all files or none, also evaluation.json in the workdir; prints the results.

        Raises:
          InputError: they cannot be written.
        """
        means, count = predictions.means(), len(predictions)
        calibration = measures.calibration(predictions)
        bins = zip(*map(np.ndarray.tolist, calibration), strict=True)
        result = {
            **self.metadata,
            "unreadable": len(self.source) - count,
            **means,
            "top1_standard_error": measures.standard_error(means["top1"], count),
            "top5_standard_error": measures.standard_error(means["top5"], count),
            "expected_calibration_error": calibration.expected_error,
            "calibration": [{"count": n, "confidence": c, "accuracy": a} for n, c, a in bins],
            "against": self._against_others(predictions),
        }
        text = json.dumps(result, indent=2) + "\n"
        with self._partial_folder() as partial:
            self._fill(partial, predictions)
            write_atomically(partial / _LAST, text)
            write_atomically(self.workdir.path / _LAST, text)
            # From here on, no disk space is needed.
            for name in (_LAST, "worst_mistakes.png"):
                (self.folder / name).unlink(missing_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == _LAST):
                path.replace(self.folder / path.name)
        title = Text(f"{self.workdir.path}, {self._title()}")
        columns = (Column(heading, justify="right") for heading in _COLUMNS)
        table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE, show_edge=False)
        table.add_row(*(text.format(**result) for text in _COLUMNS.values()))
        console.print(table)
        for other, found in result["against"].items():
            console.print(
                f"top-1 against {other}: {100 * found['difference']:+.2f} points, standard error "
                f"{100 * found['standard_error']:.2f} "
                f"({found['gained']} gained, {found['lost']} lost)",
                markup=False,
            )
        files = sorted(path.name for path in self.folder.iterdir())
        console.print(f"{self.folder}: {', '.join(files)}", markup=False, soft_wrap=True)

    def _partial_folder(self) -> contextlib.AbstractContextManager[Path]:
        return partial_folder(
            self.folder,
            "Free space there, or evaluate a copy of the workdir in a folder you can write to.",
        )

    def _against_others(self, predictions: Predictions) -> dict[str, Any]:
        """Compares top-1 with that of other views of the same images by the same checkpoint."""
        found = {}
        for path in sorted(self.folder.parent.glob(f"*/{_LAST}")):
            if path.parent == self.folder or not path.is_file():
                continue
            try:
                other = json.loads(path.read_text())
                if any(other[key] != self.metadata[key] for key in ("checkpoint", "split")):
                    continue
                views = _views_of(other)
                ranks = tables.read_ranks(path.parent / "predictions.csv")
            except Exception as error:  # anything may stand in a damaged file
                _log.warning("Not compared with %s, which is damaged: %r", path.parent, error)
                continue
            if list(ranks) == predictions.example_index.tolist():
                correct = np.array(list(ranks.values())) == 1
                found[views] = measures.paired_difference(predictions.correct, correct)
        return found

    def _fill(self, folder: Path, predictions: Predictions) -> None:
        """Writes the tables and the figures."""
        # matplotlib is slow to import
        from alexnet_jax.plots import evaluation, style

        names, labels = self.outputs
        matrix = measures.confusion(predictions, len(names))
        top5 = measures.top5_counts(predictions, len(names))
        files = (self.source.describe(int(index)) for index in predictions.example_index)
        tables.write_predictions(folder / "predictions.csv", predictions, files, names)
        tables.write_classes(folder / "classes.csv", matrix, top5, names)
        tables.write_confusion(folder / "confusion.csv", matrix, names)
        calibration = measures.calibration(predictions)
        figures = {
            "classes": evaluation.class_accuracies(np.diag(matrix), matrix.sum(axis=1), labels),
            "confusion": evaluation.confusion_matrix(matrix, labels),
            "calibration": evaluation.reliability_diagram(*calibration, calibration.expected_error),
        }
        if len(rows := measures.worst_mistakes(predictions, MISTAKES_ON_A_PAGE)):
            figures["worst_mistakes"] = self._mistakes_page(predictions.take(rows))
        footer = f"{self.workdir.path.resolve().name}, {self._title()}"
        for name, figure in figures.items():
            style.save(figure, folder / f"{name}.png", footer)

    def _mistakes_page(self, mistakes: Predictions) -> Any:
        """Draws images with their predicted and their correct class."""
        from alexnet_jax.plots.pages import Bar, image_grid

        labels = np.array(self.outputs.labels, object)
        indices = mistakes.example_index.astype(np.int64)
        # Files of different classes often have the same name.
        files = ["/".join(Path(self.source.describe(int(i))).parts[-2:]) for i in indices]
        taken_for = map(Bar, labels[mistakes.classes[:, 0]], mistakes.confidence)
        probabilities = np.exp(mistakes.log_probabilities)
        own = map(Bar, labels[mistakes.labels], probabilities, [True] * len(mistakes))
        return image_grid(
            self.source.load(indices).images,
            [file if len(file) <= 24 else f"…{file[-23:]}" for file in files],
            list(zip(taken_for, own, strict=True)),
            title="Worst mistakes: the most confident wrong predictions",
        )

    def _title(self) -> str:
        split, views = self.metadata["split"], _views_of(self.metadata)
        return f"step {self.metadata['checkpoint']}: {split}, {views}"


def _views_of(metadata: Mapping[str, Any]) -> str:
    """Names the views, and the sides in pixels of a dense evaluation."""
    return " ".join([metadata["views"], *map(str, metadata.get("scales", ()))])
