"""Labels of points that keep out of each other's way, and of everything else in the picture."""

from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path as Line
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from mnist_cnn.report.figures.style import NEUTRAL, figure_of, model_style
from mnist_cnn.report.results import ModelResult

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
    leader: Line | None
    cost: float


def label_beside(axes: Axes, model: ModelResult) -> Label:
    """A model's name and accuracy, beside its point or its interval's ends or, with a line to it, farther off."""
    x, y, (low, high) = model.metrics.parameters, model.metrics.test_accuracy, model.interval
    words = f"{model.name}\n{y:.2f} %"
    places = [Place(words, (x, high), (0, 18), "center", 3), Place(words, (x, low), (0, -18), "center", 3.5)]
    for right in (12, 30, 60, 100):
        for up in range(-112, 113, 16):
            cost = right / 12 + abs(up) / 8
            places.append(Place(words, (x, y), (right, up), "left", cost))
            places.append(Place(words, (x, y), (-right, up), "right", cost + 0.5))
    places.sort(key=lambda place: place.cost)
    return Label(_written(axes, 11, "black", "center"), (x, y), places, model_style(model.name)[0])


def mark_below(axes: Axes, x: float, sign: str, words: str) -> Label:
    """Write what lies below the picture at its lower edge, in the first row that is free, with a sign at its place."""
    point = x, axes.get_ylim()[0]
    rows = range(12)
    places = [Place(f"{sign} {words}", point, (-4, 3 + 13 * row), "left", row) for row in rows]
    places += [Place(f"{words} {sign}", point, (4, 3 + 13 * row), "right", row + 2) for row in rows]
    return Label(_written(axes, 9, NEUTRAL, "baseline"), point, places, None)


def settle(axes: Axes, labels: list[Label], obstacles: list[Obstacle]) -> None:
    """Put each label where it collides least, given the others; in a few rounds, for later ones may move earlier."""
    figure_of(axes).draw_without_rendering()  # Boxes are known once the layout is.
    taken = [(obstacle.box(axes), obstacle.weight) for obstacle in obstacles]
    choices = [
        sorted((_spot(axes, label, place, taken) for place in label.places), key=lambda spot: spot.cost)
        for label in labels
    ]
    chosen = [spots[0] for spots in choices]
    for _ in range(4):
        for own, spots in enumerate(choices):
            chosen[own] = _best(spots, chosen[:own] + chosen[own + 1 :])
    for label, spot in zip(labels, chosen, strict=True):
        _put(label.text, spot.place)
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
        # A line may pass behind it.
        path_effects=[withStroke(linewidth=3, foreground="white")],
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


def _spot(axes: Axes, label: Label, place: Place, taken: list[tuple[Bbox, float]]) -> Spot:
    """Where a label would be at a place, and how much it would cover there."""
    _put(label.text, place)
    box = label.text.get_window_extent()
    x, y = place.offset
    leader = None
    if label.colour and place.point == label.point and (abs(x) > 12 or abs(y) > 16):
        point = axes.transData.transform(label.point)
        leader = Line([point, point + np.array(place.offset) * figure_of(axes).dpi / 72])
    frame = axes.bbox
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered = sum(weight for other, weight in taken if box.overlaps(other))
    # Its own point and interval are among those that a leader meets; so they are for each place.
    met = sum(weight / 4 for other, weight in taken if leader and leader.intersects_bbox(other, filled=False))
    return Spot(place, box, leader, place.cost + 1000 * outside + covered + met)


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
