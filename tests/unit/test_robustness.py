"""Robustness: settings, the measurement, its table and its figure."""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import Images
from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.evaluation.corruptions import corruptions
from mnist_cnn.evaluation.robustness import robustness
from mnist_cnn.report.figures.robustness import robustness_map
from mnist_cnn.report.figures.style import save
from mnist_cnn.report.robustness import MEAN, NONE, robustness_markdown, robustness_table
from mnist_cnn.settings.robustness import Robustness
from mnist_cnn.settings.validation import validate
from tests.helpers import MNIST, bar, squares
from tests.severities import severities

SEVERITIES = severities()
NAMES = [corruption.name for corruption in corruptions(SEVERITIES)]
DIGITS = torch.cat([bar(0.4), bar(-0.4), squares(8).pixels])


# ---- Settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotation_deg": 181.0}, ["rotation_deg", "181", "180"]),
        ({"scale_down": 1.2}, ["scale_down", "1.2", "1"]),
        ({"scale_up": 0.9}, ["scale_up", "0.9", "1"]),
        ({"blur_px": -1.0}, ["blur_px", "-1", "0"]),
        ({"thinner_px": 0.3}, ["thinner_px", "0.3", "0.5"]),
        ({"salt_and_pepper_percent": 101}, ["salt_and_pepper_percent", "101", "100"]),
        ({"small_shift_px": 4.0}, ["small_shift_px", "4", "large_shift_px"]),
        ({"weak_noise": 0.5}, ["weak_noise", "0.5", "strong_noise"]),
        ({"seed": -1}, ["seed", "-1", "0"]),
        ({"gamma": 2.0}, ["gamma", "unknown", "contrast"]),
    ],
)
def test_a_severity_that_is_out_of_bounds_is_refused_in_one_line(changes: dict[str, float], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        validate(Robustness, SEVERITIES.model_dump() | changes, "here")
    [line] = str(error.value).splitlines()
    assert line.startswith("here: ") and all(word in line for word in words)


# ---- The measurement


@pytest.mark.parametrize("deskewed", [False, True])
def test_each_corruption_is_measured_and_digits_are_deskewed_after_it(deskewed: bool) -> None:
    images = squares(8)
    seen: list[torch.Tensor] = []

    def predict(given: Images) -> Predictions:
        """Classifies one image fewer correctly at each call."""
        assert torch.equal(given.labels, images.labels)
        seen.append(given.pixels)
        logits = torch.nn.functional.one_hot(given.labels, 10).float()
        logits[: len(seen) % 8] = 0.0
        logits[: len(seen) % 8, 9] = 1.0
        return Predictions(logits, given.labels)

    found = robustness(predict, images, deskewed, SEVERITIES)
    assert list(found) == NAMES
    assert list(found.values()) == [100 * (8 - place % 8) / 8 for place in range(1, len(NAMES) + 1)]
    for pixels, corruption in zip(seen, corruptions(SEVERITIES), strict=True):
        expected = corruption(images.pixels, SEVERITIES.seed)
        assert torch.equal(pixels, deskew(expected) if deskewed else expected)


# ---- The table


def measured(count: int, missing: tuple[int, ...] = (), stem: str = "model_") -> dict[str, Mapping[str, float] | None]:
    """Models of which each is a little better than the one before."""
    return {
        f"{stem}{number}": None
        if number in missing
        else {NONE: 99 + number / 100} | {name: 40 + 3 * place + number for place, name in enumerate(NAMES)}
        for number in range(1, count + 1)
    }


def cells(markdown: str) -> list[list[str]]:
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html, re.DOTALL)]


@pytest.mark.parametrize("count", [3, 12])
def test_rows_are_corruptions_between_the_images_as_they_are_and_the_mean(count: int) -> None:
    found = measured(count, missing=(2,))
    accuracies = robustness_table(found, SEVERITIES)
    assert list(accuracies.columns) == list(found)
    assert list(accuracies.index.get_level_values(0)) == [NONE, *NAMES, MEAN]
    assert accuracies["model_2"].isna().all()
    for model, values in found.items():
        if values:
            assert accuracies[model].droplevel(1)[[NONE, *NAMES]].to_dict() == dict(values)
            assert accuracies[model].iloc[-1] == pytest.approx(np.mean([values[name] for name in NAMES]), abs=1e-4)
    again = pd.read_csv(io.StringIO(accuracies.to_csv()), index_col=[0, 1], keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(again, accuracies)


def test_a_model_without_one_of_the_corruptions_has_no_mean() -> None:
    accuracies = robustness_table({"model_1": {NONE: 99.0, "blur": 98.0}}, SEVERITIES)
    assert accuracies["model_1"].dropna().droplevel(1).to_dict() == {NONE: 99.0, "blur": 98.0}


def test_the_markdown_marks_the_highest_of_each_row_and_who_was_not_looked_at() -> None:
    accuracies = robustness_table(measured(4, missing=(2,)) | {"model_5": measured(4)["model_4"]}, SEVERITIES)
    header, *rows = cells(robustness_markdown(accuracies, MNIST))
    assert header[1:] == list(accuracies.columns) and len(rows) == len(accuracies)
    for row, (_, values) in zip(rows, accuracies.iterrows(), strict=True):
        plain = ["–" if pd.isna(value) else f"{value:.2f}" for value in values]
        assert row[1:4] == plain[:3]
        assert row[4:] == [f"<strong>{plain[3]}</strong>"] * 2


def test_a_single_model_has_no_highest_and_none_at_all_is_a_table_of_dashes() -> None:
    for missing, expected in (((2,), r"\d\d\.\d\d"), ((1, 2), "–")):
        _, *rows = cells(robustness_markdown(robustness_table(measured(2, missing), SEVERITIES), MNIST))
        assert all(re.fullmatch(expected, row[1]) and row[2] == "–" for row in rows)


# ---- The figure


def draw(found: Mapping[str, Mapping[str, float] | None], digits: torch.Tensor = DIGITS) -> Figure:
    return robustness_map(robustness_table(found, SEVERITIES), digits, SEVERITIES, MNIST)


def texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]


@pytest.mark.parametrize(
    ("count", "missing", "stem"),
    [(1, (), "model_"), (3, (2,), "model_"), (12, (), "model_"), (12, (3, 8), "residual_gelu_"), (2, (1, 2), "model_")],
)
def test_every_accuracy_is_written_and_nothing_leaves_the_picture_or_overlaps(
    count: int, missing: tuple[int, ...], stem: str
) -> None:
    found = measured(count, missing, stem)
    figure = draw(found)
    accuracies = robustness_table(found, SEVERITIES).to_numpy().ravel()
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["–" if np.isnan(value) else f"{value:.1f}" for value in accuracies]
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent()
        assert -1 <= box.x0 and box.x1 <= figure.bbox.width + 1, text
        assert -1 <= box.y0 and box.y1 <= figure.bbox.height + 1, text
        boxes += [box] if text in figure.axes[0].get_xticklabels() + figure.axes[0].texts else []
    for place, box in enumerate(boxes):
        assert box.count_overlaps(boxes[place + 1 :]) == 0


def test_equal_accuracies_and_digits_give_equal_bytes_and_the_digits_stay_as_they_are(tmp_path: Path) -> None:
    digits = DIGITS.clone()
    paths = [tmp_path / name for name in ("one.png", "two.png")]
    for path in paths:
        save(draw(measured(3), digits), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert torch.equal(digits, DIGITS)


def test_each_row_shows_digits_as_its_corruption_leaves_them_as_many_as_there_is_room_for() -> None:
    shown = {}
    for count in (3, 12):
        [image] = draw(measured(count)).axes[0].images
        strip = 255 - np.asarray(image.get_array())
        shown[count] = strip.shape[1] // 30
        windows = np.lib.stride_tricks.sliding_window_view(strip[:, :28], (28, 28))[:, 0]
        for pixels in [DIGITS[0], *(found(DIGITS[:1], SEVERITIES.seed)[0] for found in corruptions(SEVERITIES))]:
            assert (windows == pixels.numpy()).all((1, 2)).any()
    assert shown[3] > shown[12] == 1
    assert np.asarray(draw(measured(1), DIGITS[:1]).axes[0].images[0].get_array()).shape[1] == 30


def test_colours_tell_99_from_98_and_80_from_50_and_numbers_stand_out_from_them() -> None:
    values = [99.9, 99, 98, 95, 90, 80, 50, 10]
    figure = draw({f"model_{place}": dict.fromkeys([NONE, *NAMES], value) for place, value in enumerate(values, 1)})
    row = figure.axes[0].patches[: len(values)]

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    grounds = [luminance(patch.get_facecolor()) for patch in row]  # type: ignore[arg-type]
    assert all(lighter > 1.15 * darker for lighter, darker in zip(grounds, grounds[1:], strict=False))
    for text, ground in zip(figure.axes[0].texts, grounds, strict=False):
        ink = {"black": 0.0, "white": 1.0}[str(text.get_color())]
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) > 4.5


@pytest.mark.parametrize(("drops", "hardest"), [({}, True), ({"model_2": "blur"}, False)])
def test_the_heading_names_a_corruption_where_all_models_find_it_hardest(drops: dict[str, str], hardest: bool) -> None:
    found = {name: dict(values or {}) for name, values in measured(3).items()}
    for model, corruption in drops.items():
        found[model][corruption] = 20.0
    figure = draw(found | {"model_4": None})
    assert ("Rotation +20°" in figure.get_suptitle()) == hardest
