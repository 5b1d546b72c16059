"""Labels of points and of lines, which keep out of each other's way, and of everything else in the picture."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path as Line
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, ScaledTranslation
from numpy.typing import NDArray

from mnist_cnn.report.figures.style import NEUTRAL, NOTE, TEXT, figure_of, model_style

Point = tuple[float, float]


class Place(NamedTuple):
    """A way to write a label: its text, so many points from a point in data, and how much worse it is than others."""

    words: str
    point: Point
    offset: Point
    align: Literal["left", "center", "right"]
    cost: float


class Label(NamedTuple):
    """A label of a point, and its places, the first of equals; the colour of a line to it, if it may be far off."""

    text: Annotation
    point: Point
    places: list[Place]
    colour: str | None


class Obstacle(NamedTuple):
    """What no label should cover, from corner to corner in data, and how bad it would be; ``pad`` is in points."""

    start: Point
    end: Point
    pad: float
    weight: float

    def box(self, axes: Axes) -> Bbox:
        """The rectangle in pixels."""
        corners = axes.transData.transform([self.start, self.end])
        return Bbox([corners.min(axis=0), corners.max(axis=0)]).padded(self.pad * figure_of(axes).dpi / 72)


class Spot(NamedTuple):
    """A place as it would be in the picture, in pixels; its cost is that of all but the other labels."""

    place: Place
    box: Bbox
    covers: bool
    leader: Line | None
    cost: float


def label_beside(axes: Axes, words: str, point: Point, interval: Point, colour: str) -> Label:
    """Words beside a point, or beside an end of its interval, upright, or with a line to the point, farther off."""
    x, y = point
    low, high = interval
    places = [Place(words, (x, high), (0, 15), "center", 3), Place(words, (x, low), (0, -15), "center", 3.5)]
    for right in (9, 24, 48, 80):
        for up in range(-98, 99, 14):
            cost = right / 10 + abs(up) / 7
            places.append(Place(words, point, (right, up), "left", cost))
            places.append(Place(words, point, (-right, up), "right", cost + 0.5))
    places.sort(key=lambda place: place.cost)
    return Label(_written(axes, TEXT, "black", "center"), point, places, colour)


def mark_below(axes: Axes, x: float, sign: str, words: str) -> Label:
    """Write what lies below the picture at its lower edge, in the first row that is free, with a sign at its place."""
    point = x, axes.get_ylim()[0]
    rows = range(12)
    places = [Place(f"{sign} {words}", point, (-4, 3 + 12 * row), "left", row) for row in rows]
    places += [Place(f"{words} {sign}", point, (4, 3 + 12 * row), "right", row + 2) for row in rows]
    return Label(_written(axes, NOTE, NEUTRAL, "baseline"), point, places, None)


def settle(axes: Axes, labels: list[Label], obstacles: list[Obstacle]) -> None:
    """Put each label where it collides least, given the others; in a few rounds, for later ones may move earlier."""
    figure_of(axes).draw_without_rendering()  # Boxes are known once the layout is.
    taken = [(obstacle.box(axes), obstacle.weight) for obstacle in obstacles]
    choices = [
        sorted(
            (_spot(axes, label, place, box, taken) for place, box in _boxes(axes, label)), key=lambda spot: spot.cost
        )
        for label in labels
    ]
    chosen = [spots[0] for spots in choices]
    for _ in range(4):
        for own, spots in enumerate(choices):
            chosen[own] = _best(spots, chosen[:own] + chosen[own + 1 :])
    for label, spot in zip(labels, chosen, strict=True):
        _put(label.text, spot.place)
        if spot.covers:  # (A white outline of each letter would make an SVG six times as large.)
            label.text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.7})
        if label.colour and spot.leader:
            line = {"arrowstyle": "-", "color": label.colour, "linewidth": 1, "shrinkA": 0, "shrinkB": 5}
            axes.annotate("", label.point, spot.place.offset, textcoords="offset points", arrowprops=line)


def _written(axes: Axes, size: float, colour: str, align: Literal["center", "baseline"]) -> Annotation:
    """An annotation that has no words nor place yet."""
    annotation = axes.annotate(
        "",
        (0, 0),
        (0, 0),
        textcoords="offset points",
        fontsize=size,
        color=colour,
        va=align,
        annotation_clip=False,
    )
    # It will lie within the frame, and so needs no room beside it.
    annotation.set_in_layout(False)
    return annotation


def _best(spots: list[Spot], others: list[Spot]) -> Spot:
    """Of spots, the cheapest first, the one that with what it collides with costs least."""
    best, least = spots[0], float("inf")
    for spot in spots:
        if spot.cost >= least:
            break
        cost = spot.cost + sum(_clash(spot, other) for other in others)
        if cost < least:
            best, least = spot, cost
    return best


def _boxes(axes: Axes, label: Label) -> Iterator[tuple[Place, Bbox]]:
    """A label's places, and its box in pixels at each of them. The same words are laid out once, and then moved."""
    known: dict[tuple[str, str], tuple[Bbox, NDArray]] = {}
    for place in label.places:
        at = axes.transData.transform(place.point) + np.array(place.offset) * figure_of(axes).dpi / 72
        if (place.words, place.align) not in known:
            _put(label.text, place)
            known[place.words, place.align] = label.text.get_window_extent(), at
        box, first = known[place.words, place.align]
        yield place, box.translated(*(at - first))


def _spot(axes: Axes, label: Label, place: Place, box: Bbox, taken: list[tuple[Bbox, float]]) -> Spot:
    """How much a label would cover at a place, where it has a box in pixels."""
    x, y = place.offset
    leader = None
    if label.colour and place.point == label.point and (abs(x) > 9 or abs(y) > 14):
        point = axes.transData.transform(label.point)
        leader = Line([point, point + np.array(place.offset) * figure_of(axes).dpi / 72])
    frame = axes.bbox
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered = sum(weight for other, weight in taken if box.overlaps(other))
    # Its own point and interval are among those that a leader meets; so they are for each place.
    met = sum(weight / 4 for other, weight in taken if leader and leader.intersects_bbox(other, filled=False))
    return Spot(place, box, covered > 0, leader, place.cost + 1000 * outside + covered + met)


def _clash(spot: Spot, other: Spot) -> float:
    """How much two labels with their leaders are in each other's way."""
    pairs = ((spot.leader, other.box), (other.leader, spot.box))
    crossed = sum(bool(leader and leader.intersects_bbox(box)) for leader, box in pairs)
    tangled = bool(spot.leader and other.leader and spot.leader.intersects_path(other.leader))
    return 100 * spot.box.padded(1).overlaps(other.box) + 20 * crossed + 5 * tangled


def _put(text: Annotation, place: Place) -> None:
    text.set_text(place.words)
    text.xy = place.point
    text.set_position(place.offset)
    text.set_horizontalalignment(place.align)


# Points from line to line of labels beside each other.
LINE = 12.5


class End(NamedTuple):
    """The last point of a model's line, and what to write of it."""

    name: str
    words: str
    point: Point


def label_ends(panels: Sequence[tuple[Axes, Sequence[End]]]) -> None:
    """Write at the ends of each panel's lines whose they are, in a column to the right of the frame.

    Each label has its line's marker. A frame should be as high as its labels need: ``LINE`` points each.
    """
    # Their widths make the layout; where each belongs is known once that is.
    texts = [
        [
            axes.annotate(
                end.words, (1, 0.5), (_TEXT_AT, 0), xycoords="axes fraction", textcoords="offset points", va="center"
            )
            for end in ends
        ]
        for axes, ends in panels
    ]
    figure_of(panels[0][0]).draw_without_rendering()
    for (axes, ends), written in zip(panels, texts, strict=True):
        pixels = figure_of(axes).dpi / 72
        wanted = [float(axes.transData.transform(end.point)[1]) for end in ends]
        heights = spread(wanted, LINE * pixels, axes.bbox.y0, axes.bbox.y1 - LINE / 2 * pixels)
        for text, end, height in zip(written, ends, heights, strict=True):
            up = (height - axes.bbox.y0) / axes.bbox.height
            text.xy = (1, up)
            _lead(axes, end, up)


def _lead(axes: Axes, end: End, up: float) -> None:
    """The marker of a line beside its label, at a fraction of the frame's height, and a thin line to its last point."""
    colour, marker, _ = model_style(end.name)
    aside = axes.transAxes + ScaledTranslation(_MARKER_AT / 72, 0, figure_of(axes).dpi_scale_trans)
    # With a level end, so that a steep one keeps clear of the other markers.
    bent = f"arc,angleA=180,angleB=0,armA={_MARKER_AT / 3:g},armB=0,rad=0"
    line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.7, "connectionstyle": bent}
    axes.annotate(
        "", end.point, (1, up), xycoords="data", textcoords=aside, arrowprops=line | {"shrinkA": 0, "shrinkB": 0}
    )
    axes.plot([1], [up], marker, color=colour, markersize=5, transform=aside, clip_on=False)


# Points from the frame.
_MARKER_AT, _TEXT_AT = 22, 29


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights as near to the wanted ones as can be (least squares), each ``gap`` apart, in their order.

    Between ``low`` and ``high``, where there is room for all; else the highest lie above.

    Source: "Isotone Optimization in R: Pool-Adjacent-Violators Algorithm (PAVA) and Active Set Methods", 2009,
    https://doi.org/10.18637/jss.v032.i05
    """
    # Of equal heights the first is the upper one.
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], -place))
    pools: list[tuple[float, int]] = []
    for rank, place in enumerate(order):
        mean, count = wanted[place] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    level = [mean for mean, count in pools for _ in range(count)]
    highest = max(low, high - (len(wanted) - 1) * gap)
    heights = [0.0] * len(wanted)
    for rank, place in enumerate(order):
        heights[place] = min(max(level[rank], low), highest) + rank * gap
    return heights
