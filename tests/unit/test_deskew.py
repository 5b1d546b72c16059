"""Digits without their slant."""

import pytest
import torch
from torch import Tensor

from mnist_cnn.data.deskew import deskew
from tests.helpers import bar, noise


def picture(*rows: str) -> Tensor:
    """One image, a figure a pixel: 0 is background."""
    return torch.tensor([[int(figure) for figure in row] for row in rows], dtype=torch.uint8).unsqueeze(0)


def slant(pixels: Tensor) -> float:
    """By how much the ink of one image lies further to the right with each row further down."""
    y, x = (axis.double() for axis in torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij"))
    ink = pixels.double().view(28, 28)
    y, x = (axis - (ink * axis).sum() / ink.sum() for axis in (y, x))
    return ((ink * x * y).sum() / (ink * y * y).sum()).item()


def test_rows_move_by_the_slant_until_the_ink_is_upright() -> None:
    slanted, upright = picture("0900000", "0090000", "0009000"), picture("0090000", "0090000", "0090000")
    assert torch.equal(deskew(slanted), upright)
    assert torch.equal(deskew(slanted.flip(2)), upright.flip(2))


def test_a_row_that_moves_by_half_a_pixel_shares_its_ink_between_two() -> None:
    # The mean lies half a row from each of two rows that are one pixel apart.
    assert torch.equal(deskew(picture("008000", "000800")), picture("004400", "004400"))


@pytest.mark.parametrize("lean", [-0.6, 0.05, 0.4])
def test_a_slanted_bar_is_deskewed_around_its_middle(lean: float) -> None:
    slanted = bar(lean)
    assert slant(slanted) == pytest.approx(lean, rel=0.05)
    assert slant(deskew(slanted)) == pytest.approx(0, abs=0.01)
    assert (deskew(slanted).int() - bar(0).int()).abs().float().mean() < 1.5


@pytest.mark.parametrize(
    "pixels",
    [picture("000", "000"), picture("0990", "0990"), picture("0000", "0120"), picture("909", "090", "909"), bar(0.0)],
    ids=["blank", "upright", "one row", "a cross", "a bar"],
)
def test_what_does_not_slant_stays(pixels: Tensor) -> None:
    assert torch.equal(deskew(pixels), pixels)


def test_what_leaves_the_image_is_lost_and_what_comes_in_is_background() -> None:
    # The ink of the two rows in the middle slants by some pixels a row; by that, the first row's moves out.
    pixels = picture("0000001", "0000000", "0900000", "0000900", "0000000")
    result = deskew(pixels)
    assert result.dtype == torch.uint8 and result.shape == pixels.shape
    assert (result.sum((0, 2)) > 0).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("chunk", [1, 3, 2000])
def test_each_image_is_deskewed_by_its_own_slant_however_many_at_a_time(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    images = torch.cat([bar(0.3), bar(-0.5), bar(0.0), noise(4).pixels])
    expected = torch.cat([deskew(image) for image in images.split(1)])
    monkeypatch.setattr("mnist_cnn.data.deskew._CHUNK", chunk)
    assert torch.equal(deskew(images), expected)
