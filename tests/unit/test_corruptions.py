"""Corrupted images: each corruption does what it is called, by its severity, and gives the same bytes every time."""

import math
import zlib

import pytest
import torch
from torch import Tensor

from mnist_cnn.evaluation.corruptions import Corruption, corruptions
from tests.helpers import bar, noise, squares
from tests.severities import severities

SEVERITIES = severities()
NAMES = [corruption.name for corruption in corruptions(SEVERITIES)]
DRAWING = {"shift_small", "shift_large", "noise_weak", "noise_strong", "salt_and_pepper"}
GREY = torch.full((50, 28, 28), 128, dtype=torch.uint8)
each_corruption = pytest.mark.parametrize("name", NAMES)


def named(name: str, **changes: float) -> Corruption:
    [found] = [corruption for corruption in corruptions(severities(**changes)) if corruption.name == name]
    return found


def corrupted(name: str, pixels: Tensor, **changes: float) -> Tensor:
    return named(name, **changes)(pixels, seed=0)


def moments(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the ink of each image: mean row, mean column, and the covariance ``(N, 2, 2)`` of both, in pixels."""
    ink = pixels.double() / pixels.double().sum((1, 2), keepdim=True)
    places = torch.arange(28, dtype=torch.float64)
    rows, columns = (ink.sum(2) * places).sum(1), (ink.sum(1) * places).sum(1)
    y, x = places.view(28, 1) - rows.view(-1, 1, 1), places - columns.view(-1, 1, 1)
    products = [(ink * one * other).sum((1, 2)) for one in (y, x) for other in (y, x)]
    return rows, columns, torch.stack(products, 1).view(-1, 2, 2)


@each_corruption
def test_images_stay_images_and_those_given_as_they_are(name: str) -> None:
    pixels = noise(7).pixels
    before, state = pixels.clone(), torch.get_rng_state()
    result = corrupted(name, pixels)
    assert result.dtype == torch.uint8 and result.shape == pixels.shape
    assert not torch.equal(result, before)
    assert torch.equal(pixels, before)
    assert torch.equal(torch.get_rng_state(), state)


@each_corruption
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others_where_something_is_drawn(name: str) -> None:
    pixels = squares(20).pixels
    first, again, other = (named(name)(pixels, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in DRAWING)


def test_bytes_are_those_of_every_machine_and_every_version_of_pytorch() -> None:
    # Changes by intention make another sum, and all results of corrupted images with it.
    pixels = (torch.arange(20 * 784) ** 2 // 31 % 256).to(torch.uint8).view(20, 28, 28)
    found = b"".join(corrupted(name, pixels).numpy().tobytes() for name in NAMES)
    assert zlib.crc32(found) == 133767785


@pytest.mark.parametrize("chunk", [1, 3])
@each_corruption
def test_an_image_is_corrupted_as_its_place_says_whichever_follow_and_however_many_at_a_time(
    monkeypatch: pytest.MonkeyPatch, name: str, chunk: int
) -> None:
    pixels = noise(7).pixels
    whole = corrupted(name, pixels)
    monkeypatch.setattr("mnist_cnn.evaluation.corruptions._CHUNK", chunk)
    assert torch.equal(corrupted(name, pixels[:4]), whole[:4])


@each_corruption
def test_a_corruption_follows_from_its_own_severity_alone(name: str) -> None:
    others = severities(
        rotation_deg=7.0, small_shift_px=1.0, large_shift_px=3.0, scale_down=0.7, scale_up=1.5, thicker_px=2.0,
        thinner_px=0.5, blur_px=2.0, weak_noise=0.05, strong_noise=0.3, salt_and_pepper_percent=9.0, contrast=0.6,
    )  # fmt: skip
    pixels, own = squares(10).pixels, corrupted(name, squares(10).pixels)
    changed = []
    for field in type(others).model_fields:
        result = corrupted(name, pixels, **{field: getattr(others, field)})
        changed += [field] if not torch.equal(result, own) else []
    assert len(changed) == (name != "inversion")
    assert named(name).label != named(name, **{field: getattr(others, field) for field in changed}).label or not changed


def test_corruptions_of_one_kind_draw_independently() -> None:
    weak, strong = (corrupted(name, GREY).double().flatten() for name in ("noise_weak", "noise_strong"))
    assert abs(torch.corrcoef(torch.stack([weak, strong]))[0, 1]) < 4 / math.sqrt(GREY.numel())


def test_names_and_labels_are_distinct() -> None:
    found = corruptions(SEVERITIES)
    assert len({corruption.name for corruption in found}) == len({corruption.label for corruption in found}) == 14


NOTHING = {
    "rotation_left": {"rotation_deg": 0.0}, "rotation_right": {"rotation_deg": 0.0},
    "shift_small": {"small_shift_px": 0.0}, "scale_down": {"scale_down": 1.0}, "scale_up": {"scale_up": 1.0},
    "thicker": {"thicker_px": 0.0}, "thinner": {"thinner_px": 0.0}, "blur": {"blur_px": 0.0},
    "noise_weak": {"weak_noise": 0.0}, "salt_and_pepper": {"salt_and_pepper_percent": 0.0},
    "contrast": {"contrast": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_without_severity_nothing_changes(name: str) -> None:
    pixels = noise(5).pixels
    assert torch.equal(corrupted(name, pixels, **NOTHING[name]), pixels)


@pytest.mark.parametrize(("name", "distance"), [("shift_small", 2), ("shift_large", 4)])
def test_a_shift_moves_whole_pixels_in_each_of_eight_directions(name: str, distance: int) -> None:
    pixels = bar(0.2).repeat(200, 1, 1)
    shifted = corrupted(name, pixels)
    (rows, columns, _), (row, column, _) = moments(shifted), moments(pixels)
    moved = torch.stack([rows - row, columns - column], 1)
    assert (moved - moved.round()).abs().max() < 0.1  # what little ink leaves the image
    steps = {tuple(step) for step in (moved.round() / distance).int().tolist()}
    assert steps == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)} - {(0, 0)}
    ways = [torch.roll(pixels[0], (distance * y, distance * x), (0, 1))[6:-6, 6:-6] for y, x in steps]
    assert all(any(torch.equal(image[6:-6, 6:-6], way) for way in ways) for image in shifted)


def test_rotations_turn_by_as_much_in_opposite_directions() -> None:
    upright = bar(0.0)
    angles = {}
    for name in ("rotation_left", "rotation_right"):
        spread = moments(corrupted(name, upright))[2][0]
        # Of the longest axis from upright, positive where its upper end is to the left.
        angles[name] = math.degrees(math.atan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])) / 2
    assert angles["rotation_left"] == pytest.approx(20, abs=0.3)
    assert angles["rotation_right"] == pytest.approx(-20, abs=0.3)
    pixels = squares(10).pixels
    left, right = corrupted("rotation_left", pixels), corrupted("rotation_right", pixels.flip(2)).flip(2)
    assert (left.int() - right.int()).abs().max() <= 1


@pytest.mark.parametrize(("name", "factor"), [("scale_down", 0.8), ("scale_up", 1.25)])
def test_scaling_changes_the_extent_alike_in_both_directions(name: str, factor: float) -> None:
    (row, column, before), (rows, columns, after) = moments(bar(0.3)), moments(corrupted(name, bar(0.3)))
    assert (rows - row).abs().max() < 0.02 and (columns - column).abs().max() < 0.02
    # Resampling blurs a little.
    assert torch.allclose(after, factor**2 * before, atol=0.3)


@pytest.mark.parametrize("by", [0.5, 1.0, 3.0])
def test_strokes_grow_wider_or_narrower_by_the_pixels_asked_for(by: float) -> None:
    stroke = torch.zeros(2, 28, 28, dtype=torch.uint8)
    stroke[0, :, 10:16] = stroke[1, 10:16] = 255
    for name, width in (("thicker", 6 + by), ("thinner", 6 - by)):
        result = corrupted(name, stroke, **{f"{name}_px": by}) / 255
        assert result[0].sum(1).tolist() == pytest.approx(28 * [width], abs=0.02)
        assert torch.equal(result[0], result[1].T)
        assert moments(result)[1][0].item() == pytest.approx(12.5)


def test_digits_gain_and_lose_ink_and_thin_ones_are_not_lost() -> None:
    thin = bar(0.5)  # about as wide as the strokes of digits
    ink = [corrupted("thicker", thin).sum(), thin.sum(), corrupted("thinner", thin).sum()]
    assert 1.8 * ink[1] > ink[0] > 1.2 * ink[1]
    assert 0.4 * ink[1] < ink[2] < 0.8 * ink[1]


def test_a_blur_spreads_by_its_standard_deviation_and_keeps_the_ink() -> None:
    blurred = corrupted("blur", bar(0.3), blur_px=1.5)
    assert blurred.sum().item() == pytest.approx(bar(0.3).sum().item(), rel=0.005)
    spread = moments(blurred)[2] - moments(bar(0.3))[2]
    assert torch.allclose(spread, 1.5**2 * torch.eye(2, dtype=torch.float64), rtol=0.03, atol=0.05)


@pytest.mark.parametrize("deviation", [0.05, 0.15])
def test_noise_has_its_standard_deviation_where_it_is_not_cut_off(deviation: float) -> None:
    added = (corrupted("noise_weak", GREY, weak_noise=deviation).double() - 128) / 255
    assert added.std().item() == pytest.approx(deviation, rel=0.02)
    assert added.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(GREY.numel()))
    neighbours = torch.stack([added[:, :, 1:].flatten(), added[:, :, :-1].flatten()])
    assert abs(torch.corrcoef(neighbours)[0, 1]) < 0.03


def test_salt_and_pepper_take_their_fraction_and_leave_the_rest() -> None:
    result = corrupted("salt_and_pepper", GREY, salt_and_pepper_percent=10.0)
    salt, pepper = ((result == value).double().mean().item() for value in (255, 0))
    assert salt == pytest.approx(0.05, rel=0.1) and pepper == pytest.approx(0.05, rel=0.1)
    assert set(result.unique().tolist()) == {0, 128, 255}


def test_contrast_is_reduced_around_the_mean_of_each_image() -> None:
    pixels = squares(10).pixels
    before, after = (images.double() for images in (pixels, corrupted("contrast", pixels)))
    assert torch.allclose(after.mean((1, 2)), before.mean((1, 2)), atol=0.2)
    assert torch.allclose(after.std((1, 2)), 0.4 * before.std((1, 2)), rtol=0.01)


def test_an_inversion_is_its_own_inverse() -> None:
    pixels = noise(5).pixels
    inverted = corrupted("inversion", pixels)
    assert torch.equal(inverted.int() + pixels, torch.full((5, 28, 28), 255))
    assert torch.equal(corrupted("inversion", inverted), pixels)
