"""The look of all figures: sizes, colours, fonts, headings, legends."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath

from mnist_cnn.common.files import atomic_write
from mnist_cnn.models import MODELS
from mnist_cnn.settings.story import Story

# Source of the colours: "Color Universal Design", Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#B33C00", "#0072B2", "#000000", "#8A7A00")
MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (6, 2)), (0, (3, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)), "--")
NEUTRAL = "#444444"
# A reference figure, in every picture.
REFERENCE: Any = {"marker": "x", "markersize": 6, "markeredgewidth": 1.6, "linestyle": "none"}

# Inches. A page shows a picture about 800 px wide, where a point of type then has 1.4 px; its PNG has twice as many
# pixels, for screens that show two by two of them as one.
WIDTH = 8.0
# Points: of a heading; of most text; of notes, the least that can be read on a page.
HEADING, TEXT, NOTE = 12.0, 9.5, 8.5

_STYLE: Any = {
    # The one that comes with matplotlib: others of its list, where a machine has them, would lend it their characters.
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT - 0.5,
    "ytick.labelsize": TEXT - 0.5,
    "legend.fontsize": TEXT - 0.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": NEUTRAL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    # Boxes are measured at this resolution.
    "figure.dpi": 100,
    "savefig.dpi": 200,
    # Air around all, which a dark page shows.
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    # Letters as shapes: the same look where the font is missing, as it is in a picture on a page.
    # Names of classes are the user's, and no formulas.
    "text.parse_math": False,
    "svg.fonttype": "path",
    # Names within the file, random otherwise.
    "svg.hashsalt": "figures",
}

# Each function that draws does so in this style and with matplotlib's defaults, whatever a user's own file of settings
# says, and leaves matplotlib's settings as they were. Which window would show a picture is no part of them.
_DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
styled = matplotlib.rc_context(_DEFAULTS | _STYLE)

# What would say when and by what a file was written.
_UNSAID = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


@styled
def save(figure: Figure, *paths: Path) -> None:
    """Write a figure to each path, as PNG or SVG by its suffix; equal figures give equal bytes."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=_UNSAID[kind])


def model_style(name: str) -> tuple[str, str, Any]:
    """Colour, marker and dash of a model: its own in every picture, whichever others are shown."""
    place = MODELS.index(name)
    # Where the colours start again, as they do in DVC's charts, they go with other markers and dashes.
    shifted = place + 3 * (place // len(COLOURS))
    return COLOURS[place % len(COLOURS)], MARKERS[shifted % len(MARKERS)], _DASHES[shifted % len(_DASHES)]


def draw_target(axes: Axes, target: float, labelled: bool = True) -> None:
    """A line at the target's accuracy, named to the right of the picture."""
    axes.axhline(target, color=NEUTRAL, linewidth=1.2, linestyle=":", zorder=1)
    if labelled:
        axes.annotate(
            f"target\n{target:g} %",
            (1, target),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=NOTE,
            color=NEUTRAL,
        )


def figure_of(axes: Axes) -> Figure:
    """The figure that axes are part of."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def set_heading(figure: Figure, text: str, size: float = HEADING, *, note: str = "") -> None:
    """A heading at the upper left, and below it a note in smaller letters, both in as many lines as fit.

    The picture grows by the lines that the heading was not written in, and by those of the note.
    """
    given = text.split("\n")
    # Less than there is: letters on a grid of pixels are wider than by themselves.
    room = 0.96 * figure.get_figwidth() - 0.2
    lines = [line for part in given for line in _wrapped(part, room, size, "bold")]
    below = [line for part in note.split("\n") if part for line in _wrapped(part, room, NOTE, "normal")]
    # The layout makes room for the heading alone, so that has empty lines where the note will be.
    empty = -(-len(below) * NOTE * 1.3 // size) if below else 0
    heading = figure.suptitle(
        "\n".join(lines) + int(empty) * "\n", x=0.1 / figure.get_figwidth(), ha="left", size=size, weight="bold"
    )
    figure.set_figheight(figure.get_figheight() + (len(lines) - len(given) + empty) * size / 60)
    if below:
        under = Annotation("\n".join(below), (0, 1), (0, -(1.22 * len(lines) * size + 3)), xycoords=heading)
        under.set(anncoords="offset points", va="top", fontsize=NOTE, color=NEUTRAL)
        figure.add_artist(under)


def _wrapped(text: str, inches: float, size: float, weight: str) -> list[str]:
    """Text in as few lines as fit, of about equal length."""
    # No number is parted from its unit.
    words = text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" px", "\N{NO-BREAK SPACE}px")
    lines = [words]
    for width in range(len(words), 0, -1):
        broken = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
        if len(broken) > len(lines) and all(inches_of(line, size, weight) <= inches for line in lines):
            break
        lines = broken
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def in_lines(name: str) -> str:
    """A model's name, a long one in several lines."""
    return "\n".join(line.replace(" ", "") for line in textwrap.wrap(name.replace("_", "_ "), 12))


def inches_of(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """Width of a line of text."""
    outline = TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).vertices
    return float(np.max(outline[:, 0], initial=0)) / 72


def set_legend_below(figure: Figure, handles: list[Any], names: list[str]) -> None:
    """A legend below all, in as many rows as it needs; the picture grows by those beyond the first."""
    for columns in range(len(names), 0, -1):
        # They are filled one by one, but read row by row.
        order = [place for column in range(columns) for place in range(column, len(names), columns)]
        legend = figure.legend(
            [handles[place] for place in order],
            [names[place] for place in order],
            loc="outside lower center",
            ncols=columns,
        )
        rows = -(-len(names) // columns)
        # As few columns as the rows need, so that the last is not nearly empty.
        if -(-len(names) // rows) == columns and (
            columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width
        ):
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.24 * (rows - 1))


def reference_accuracy(story: Story, name: str) -> float | None:
    """The reference test accuracy of a model, in percent, where there is one."""
    entry = story.get(name)
    return entry.reference_test_accuracy if entry else None
