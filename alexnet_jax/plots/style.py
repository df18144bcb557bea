"""What all figures share: one style, text, and saving.

Figures are made through matplotlib's object API, so no backend is chosen for the process and
nothing is kept alive by pyplot.
"""

import warnings
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.rcsetup import cycler
from rich.cells import cell_len, set_cell_size

from alexnet_jax.runtime.files import write_atomically

# Colors of Okabe and Ito: distinct for color-blind readers and in grayscale.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE, GRAY = "#E69F00", "#56B4E9", "#5F5F5F"

# DejaVu comes with matplotlib and has no Chinese, Japanese, Korean or Indic characters.
_FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei"),
    *("PingFang SC", "Hiragino Sans", "Noto Sans Devanagari", "Arial Unicode MS", "Noto Sans"),
)
_FONTS = ["DejaVu Sans", *sorted({*_FALLBACK_FONTS} & {*get_font_names()})]

# Use as `@styled` on a function that draws: the caller's own settings are restored after it.
_COLORS = cycler(color=[BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE])
_SHEET = Path(__file__).with_name("figures.mplstyle")
styled = matplotlib.style.context(
    ["default", _SHEET, {"font.family": _FONTS, "axes.prop_cycle": _COLORS}]
)


@styled
def save(figure: Figure, path: str | Path, footer: str = "") -> None:
    """Writes `figure` to `path` as PNG, completely or not at all, replacing an older file.

    The file holds no date and no version number: the same drawing gives the same bytes.

    Args:
      figure: the figure.
      path: the file.
      footer: what the figure shows, such as the name of a run; written below it.
    """
    lines = "\n" * (2 * len(figure.legends)) + shorten(footer, 120)
    text = figure.text(1.0, 0.0, lines, ha="right", va="top", color=GRAY, fontsize=7.5)
    with warnings.catch_warnings():
        # A character that no font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        write_atomically(
            Path(path), lambda file: figure.savefig(file, format="png", metadata={"Software": None})
        )
    text.remove()


def legend_below(figure: Figure, **options: Any) -> None:
    """Adds a legend below all axes of a figure."""
    # Outside of the figure, whose layout cannot hold it; saving fits the page to its content.
    figure.legend(loc="upper left", bbox_to_anchor=(0.0, 0.0), **options)


def shorten(text: str, width: int) -> str:
    """Returns `text` on one line, cut with an ellipsis to `width` characters; wide ones count 2.

    Characters that cannot be drawn (control characters, bytes that are not text) are replaced.
    """
    spaced = " ".join(text.split())
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in spaced)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip(" ,;") + "…"


def percent(share: float) -> str:
    """Returns a share of 0..1 in whole percent; 0% and 100% are exact."""
    if 0.0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1.0 else f"{share:.0%}"
