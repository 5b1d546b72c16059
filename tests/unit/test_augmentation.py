"""Random changes of images: within their bounds, and independent from image to image."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from mnist_cnn.data.augmentation import augment, transform
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import Images, intensities, save_images
from mnist_cnn.engine.predictor import TTA_VIEWS
from mnist_cnn.settings.params import Augmentation, load
from stages import report
from tests.helpers import AUGMENTATION, NO_AUGMENTATION, RECIPE, ROOT, bar, noise
from tests.results import model_result

COUNT = 500


def only(**bounds: float) -> Augmentation:
    return NO_AUGMENTATION.model_copy(update=bounds)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, counted from the middle of the image."""
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return rows.unsqueeze(1).expand(height, width), columns.expand(height, width)


def blobs(height: int = 28, width: int = 28, tall: float = 3.0, wide: float = 3.0) -> Tensor:
    """Many times the same soft blob in the middle."""
    rows, columns = grid(height, width)
    blob = torch.exp(-((rows / tall) ** 2 + (columns / wide) ** 2) / 2)
    return blob.float().expand(COUNT, 1, height, width).contiguous()


def moment(images: Tensor, rows_power: int, columns_power: int) -> Tensor:
    rows, columns = grid(*images.shape[2:])
    weights = images.double()
    return (weights * rows**rows_power * columns**columns_power).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def direction(images: Tensor) -> Tensor:
    """Of the longest axis, in degrees clockwise from a row."""
    down, right = moment(images, 1, 0), moment(images, 0, 1)
    slope, tall, wide = (
        moment(images, 1, 1) - down * right,
        moment(images, 2, 0) - down**2,
        moment(images, 0, 2) - right**2,
    )
    return torch.atan2(2 * slope, wide - tall).rad2deg() / 2


def test_bounds_of_zero_return_the_images_themselves_and_draw_nothing() -> None:
    images, source = torch.rand(3, 1, 28, 28), generator()
    assert augment(images, NO_AUGMENTATION, source) is images
    assert torch.equal(source.get_state(), generator().get_state())


def test_the_same_seed_gives_the_same_changes() -> None:
    images = torch.rand(20, 1, 28, 28)
    first, again, other = (augment(images, AUGMENTATION, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    augment(torch.rand(20, 1, 28, 28, generator=generator()), AUGMENTATION, generator())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("shape", "dtype"), [((5, 1, 28, 28), torch.float32), ((2, 3, 20, 32), torch.float64)])
def test_shape_and_type_are_kept_values_stay_in_range_and_the_input_as_it_is(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = torch.rand(shape, dtype=dtype)
    before = images.clone()
    result = augment(images, Augmentation(rotation_deg=180, shift_px=14, scale_percent=90), generator())
    assert (result.shape, result.dtype, result.device) == (images.shape, dtype, images.device)
    assert result.min() >= 0
    assert result.max() <= 1 + 1e-6
    assert torch.equal(images, before)


def test_what_comes_in_from_outside_is_background() -> None:
    result = augment(torch.ones(COUNT, 1, 28, 28), only(shift_px=14), generator())
    assert result.min() == 0
    assert result[:, 0, 0].mean() == pytest.approx(0.5 * 0.75, abs=0.1)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (28, 44)])
def test_a_shift_moves_by_pixels_within_its_bound_in_all_directions(height: int, width: int) -> None:
    shifted = augment(blobs(height, width), only(shift_px=3), generator())
    down, right = moment(shifted, 1, 0), moment(shifted, 0, 1)
    for distance in (down, right):
        assert distance.abs().max() <= 3 + 0.01
        assert distance.min() < -2.9 and distance.max() > 2.9
        assert distance.mean().item() == pytest.approx(0, abs=4 * math.sqrt(3 / COUNT))
        assert distance.std().item() == pytest.approx(math.sqrt(3), rel=0.1)


def test_a_rotation_keeps_the_middle_and_turns_within_its_bound_both_ways() -> None:
    bars = blobs(tall=1.0, wide=5.0)
    turned = augment(bars, only(rotation_deg=30), generator())
    assert moment(turned, 1, 0).abs().max() < 0.02
    assert moment(turned, 0, 1).abs().max() < 0.02
    angle = direction(turned)
    assert angle.abs().max() <= 30.2
    assert angle.min() < -29 and angle.max() > 29
    assert angle.mean().item() == pytest.approx(0, abs=4 * 30 / math.sqrt(3 * COUNT))
    # Turned and not stretched.
    extent = moment(turned, 2, 0) + moment(turned, 0, 2)
    assert torch.allclose(extent, moment(bars, 2, 0) + moment(bars, 0, 2), rtol=0.03)


def test_a_scale_changes_the_extent_within_its_bound_alike_in_both_directions() -> None:
    images = blobs(64, 64, 7.0, 7.0)
    scaled = augment(images, only(scale_percent=20), generator())
    tall, wide = ((moment(scaled, *way) / moment(images, *way)).sqrt() for way in ((2, 0), (0, 2)))
    torch.testing.assert_close(tall, wide)
    assert 0.79 <= tall.min() < 0.81
    assert 1.19 < tall.max() <= 1.21
    assert tall.mean().item() == pytest.approx(1, abs=4 * 0.2 / math.sqrt(3 * COUNT))
    assert moment(scaled, 1, 0).abs().max() < 0.02


def test_given_changes_turn_anticlockwise_and_shift_left_and_up_by_pixels_of_the_image_before_it_is_enlarged() -> None:
    bars = blobs(44, 44, tall=1.0, wide=4.0)[:3]
    changed = transform(bars, *torch.tensor([[0.3, 0, 0], [1, 1, 1.25], [0, 3, -2], [0, -1, 4]]))
    assert direction(changed).tolist() == pytest.approx([-math.degrees(0.3), 0, 0], abs=0.1)
    assert moment(changed, 0, 1).tolist() == pytest.approx([0, -3, 2 * 1.25], abs=0.01)
    assert moment(changed, 1, 0).tolist() == pytest.approx([0, 1, -4 * 1.25], abs=0.01)


def test_images_of_a_batch_change_independently() -> None:
    changed = augment(blobs(tall=2.0, wide=4.0), AUGMENTATION, generator())
    assert len(changed.flatten(1).unique(dim=0)) == COUNT
    down, right = moment(changed, 1, 0), moment(changed, 0, 1)
    angle, extent = moment(changed, 1, 1), moment(changed, 2, 0) + moment(changed, 0, 2)
    neighbours = torch.stack([down[1:], down[:-1], right[1:], angle[1:], extent[1:]])
    correlations = torch.corrcoef(neighbours) - torch.eye(len(neighbours))
    assert correlations.abs().max() < 4 / math.sqrt(COUNT)


def test_the_reports_rows_are_the_digits_as_augmented_in_one_epoch_after_another() -> None:
    pixels, recipe = noise(3).pixels, RECIPE.model_copy(update={"augmentation": AUGMENTATION})
    rows = report.augmented_rows(pixels, recipe, seed=1, rows=3)
    source = generator(1)
    expected = [augment(intensities(pixels), AUGMENTATION, source).squeeze(1) for _ in range(3)]
    assert all(torch.equal(row, epoch) for row, epoch in zip(rows, expected, strict=True))
    assert not torch.equal(rows[0], rows[1])
    assert all(torch.equal(row, pixels / 255) for row in report.augmented_rows(pixels, RECIPE, seed=1, rows=2))


def test_the_report_shows_the_first_digits_as_the_selected_model_is_trained_on_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load(ROOT / "params.yaml")
    recipe, count = settings.models[settings.model], settings.report.augmented_digits
    shown: list[tuple[Any, ...]] = []
    for name in ("accuracy_curves", "loss_curves", "accuracy_against_parameters", "confusion_matrix"):
        monkeypatch.setattr(report, name, lambda *_: None)
    for name in ("misclassified_images", "save"):
        monkeypatch.setattr(report, name, lambda *_: None)
    monkeypatch.setattr(report, "load_result", lambda name, *_: model_result(name))
    monkeypatch.setattr(report, "augmented_images", lambda _, __, recipe, *rows: shown.append(rows))
    images = Images(torch.cat([bar(0.1 * index - 0.5) for index in range(12)]), torch.arange(12) % 10)
    save_images(tmp_path / "train.safetensors", images)
    given = {name: tmp_path for name in inspect.signature(report.main).parameters}
    files = {"params": ROOT / "params.yaml", "story": ROOT / "story.yaml", "looks": ROOT / "looks.yaml"}
    written_to = {
        name: tmp_path / name for name in given if name not in (*files, "evaluations", "tests", "exports", "histories")
    }
    report.main(**given | files | written_to | {"train": tmp_path / "train.safetensors"})
    written = images.pixels[:count]
    [(originals, seen, rows, views)] = shown
    assert recipe.deskew and torch.equal(originals, written) and torch.equal(seen, deskew(written))
    assert recipe.tta and len(views) == len(TTA_VIEWS)
    torch.testing.assert_close(views[0], intensities(seen).squeeze(1))
    expected = report.augmented_rows(deskew(written), recipe, settings.train.seed, len(rows))
    assert all(torch.equal(row, epoch) for row, epoch in zip(rows, expected, strict=True))
