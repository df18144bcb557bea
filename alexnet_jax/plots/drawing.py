"""What all figures share: one style, absolute placing, text that fits, and saving.

Figures are made through matplotlib's object API, so no backend is chosen for the process and
nothing is kept alive by pyplot.
"""

import functools
import os
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.rcsetup import cycler
from matplotlib.textpath import TextToPath

# A power of two: a length of n/DPI inches is then an exact float and comes out as n pixels.
DPI = 128
POINTS_PER_INCH = 72.0

# Colors of Okabe and Ito, told apart by color-blind readers and in gray print.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE, GRAY = "#E69F00", "#56B4E9", "#5F5F5F"

STYLE: dict[Any, Any] = {
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "savefig.bbox": None,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9.0,
    "text.parse_math": False,  # a class name may hold a dollar sign
    "axes.titlesize": 10.0,
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE]),
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.4,
}

# Use as `@styled` on a function that draws: the caller's own settings are put back after it.
styled = matplotlib.rc_context(STYLE)

_TEXT = TextToPath()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of `width` x `height` inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes without ticks, measured in inches from the figure's upper left corner."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    rectangle = (left / full_width, bottom / full_height, width / full_width, height / full_height)
    axes = figure.add_axes(rectangle)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write `text` from `top` inches below the upper edge, anchored `left` inches from the left."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, va="top", **style)


@functools.cache
def _advance(letter: str) -> float:
    """Return the width in inches of `letter` at one point."""
    font = FontProperties(family=STYLE["font.family"], size=1.0)
    width, _, _ = _TEXT.get_text_width_height_descent(letter, font, ismath=False)
    return float(width) / POINTS_PER_INCH


def text_width(text: str, size: float) -> float:
    """Return the width in inches of one line of `text` set at `size` points.

    Letters are added up without kerning, which errs to the wide side and lets each be measured
    once: a page holds hundreds of names to fit.
    """
    return size * sum(map(_advance, text))


def shorten(text: str, width: float, size: float) -> str:
    """Return `text` on one line, cut with an ellipsis to fit `width` inches at `size` points."""
    text = " ".join(text.split())
    if text_width(text, size) <= width:
        return text
    kept, room = 0, width - text_width("…", size)
    while (room := room - text_width(text[kept], size)) >= 0.0:
        kept += 1
    return text[:kept].rstrip(" ,;") + "…"


def wrap(text: str, width: float, size: float) -> list[str]:
    """Return `text` in lines of whole words, none wider than `width` inches at `size` points."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, size))
    return lines


@styled
def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` to `path` as PNG, all of it or nothing, replacing an older file.

    The same figure gives the same bytes: they hold no date and no version number.
    """
    target = Path(path)
    # Not tempfile: its files can be read by their owner only, and the mode survives the renaming.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
