"""What networks get to see of an image."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn import views
from mnist_cnn.data import Images
from mnist_cnn.settings.params import Augmentation, Recipe
from mnist_cnn.views import for_training, for_use, set_upright
from stages.report import seen_in_training
from tests.unit.test_training import RECIPE

UPRIGHT = RECIPE.model_copy(update={"deskew": True})


def digits(count: int) -> Images:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10)


def picture(*rows: str) -> Tensor:
    """One image, a figure a pixel: 0 is background."""
    return torch.tensor([[int(figure) for figure in row] for row in rows], dtype=torch.uint8).unsqueeze(0)


def slant(pixels: Tensor) -> float:
    """By how much the ink of one image lies further to the right with each row further down."""
    y, x = (axis.double() for axis in torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij"))
    ink = pixels.double().view(28, 28)
    y, x = (axis - (ink * axis).sum() / ink.sum() for axis in (y, x))
    return ((ink * x * y).sum() / (ink * y * y).sum()).item()


def bar(lean: float) -> Tensor:
    """A soft bar through the middle whose ink lies further to the right by ``lean`` with each row further down."""
    y, x = (axis - 13.5 for axis in torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij"))
    ink = torch.exp(-((x - lean * y) ** 2) / 4 - (y / 6) ** 4)
    return (ink * 255).round().to(torch.uint8).unsqueeze(0)


def test_rows_move_by_the_slant_until_the_ink_is_upright() -> None:
    leaning, upright = picture("0900000", "0090000", "0009000"), picture("0090000", "0090000", "0090000")
    assert torch.equal(set_upright(leaning), upright)
    assert torch.equal(set_upright(leaning.flip(2)), upright.flip(2))


def test_where_a_row_moves_by_half_a_pixel_its_ink_is_shared() -> None:
    leaning, upright = picture("008000", "000800"), picture("004400", "004400")
    # The middle lies half a row from each of two rows that are one pixel apart.
    assert torch.equal(set_upright(leaning), upright)


@pytest.mark.parametrize("lean", [-0.6, -0.2, 0.05, 0.4])
def test_a_leaning_bar_is_set_upright_around_its_middle(lean: float) -> None:
    leaning = bar(lean)
    assert slant(leaning) == pytest.approx(lean, rel=0.05)
    assert slant(set_upright(leaning)) == pytest.approx(0, abs=0.01)
    assert (set_upright(leaning).int() - bar(0).int()).abs().float().mean() < 1.5


@pytest.mark.parametrize(
    "pixels",
    [picture("000", "000"), picture("0990", "0990"), picture("0000", "0120"), picture("909", "090", "909"), bar(0.0)],
    ids=["blank", "upright", "one row", "a cross", "a bar"],
)
def test_what_does_not_slant_stays(pixels: Tensor) -> None:
    assert torch.equal(set_upright(pixels), pixels)


def test_what_leaves_the_image_is_lost_and_what_comes_in_is_background() -> None:
    # The ink of the two rows in the middle slants by some pixels a row; by that, the first row's moves out.
    pixels = picture("0000001", "0000000", "0900000", "0000900", "0000000")
    result = set_upright(pixels)
    assert result.dtype == torch.uint8 and result.shape == pixels.shape
    assert (result.sum((0, 2)) > 0).tolist() == [False, False, True, True, False]


def test_each_image_is_set_upright_by_its_own_slant() -> None:
    many = torch.cat([bar(0.3), bar(-0.5), bar(0.0), digits(1).pixels])
    assert torch.equal(set_upright(many), torch.cat([set_upright(image) for image in many.split(1)]))


def test_the_recipe_says_whether_digits_are_set_upright() -> None:
    images = digits(20)
    assert for_training(images, RECIPE) is images
    assert for_use(images, RECIPE) is images
    for seen in (for_training(images, UPRIGHT), for_use(images, UPRIGHT)):
        assert torch.equal(seen.pixels, set_upright(images.pixels))
        assert torch.equal(seen.labels, images.labels)


def test_nothing_depends_on_how_many_images_are_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images, recipe = digits(50), UPRIGHT.model_copy(update={"views": 5})
    whole = for_use(images, recipe)
    monkeypatch.setattr(views, "_CHUNK", 7)
    again = for_use(images, recipe)
    assert torch.equal(again.pixels[:, 0], whole.pixels[:, 0])
    # Where an image is turned, positions are a product of matrices, which may round otherwise for other sizes.
    assert (again.pixels.int() - whole.pixels.int()).abs().max() <= 1
    assert torch.equal(again.labels, images.labels)


@pytest.mark.parametrize("recipe", [RECIPE, UPRIGHT])
def test_views_are_the_image_turned_and_shifted_as_pytorch_does_it(recipe: Recipe) -> None:
    images, several = digits(6), recipe.model_copy(update={"views": 5})
    seen = for_use(images, several)
    assert seen.pixels.shape == (6, 5, 28, 28) and seen.pixels.dtype == torch.uint8
    once = for_training(images, several).pixels.double().unsqueeze(1)
    for place, (degrees, right, down) in enumerate(views.FIVE_VIEWS):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        theta = torch.tensor([[cos, -sin, right / 14], [sin, cos, down / 14]], dtype=torch.float64).expand(6, 2, 3)
        grid = F.affine_grid(theta, [6, 1, 28, 28], align_corners=False)
        expected = F.grid_sample(once, grid, align_corners=False).squeeze(1)
        # Rounded to whole numbers.
        assert (seen.pixels[:, place] - expected).abs().max() <= 0.5 + 1e-3


def test_views_lie_around_the_image() -> None:
    assert torch.tensor(views.FIVE_VIEWS).sum(0).tolist() == [0, 0, 0]


def test_the_reports_picture_shows_what_a_model_is_trained_on() -> None:
    images = Images(torch.cat([bar(0.5), bar(-0.3)]), torch.tensor([0, 1]))
    plain, again = seen_in_training(images, UPRIGHT, 1, 2)
    assert torch.equal(plain, set_upright(images.pixels).float() / 255) and torch.equal(plain, again)
    augmentation = Augmentation(rotation_deg=10, shift_px=2, scale_percent=10)
    first, second = seen_in_training(images, UPRIGHT.model_copy(update={"augmentation": augmentation}), 1, 2)
    assert not torch.equal(first, second) and not torch.equal(first, plain)
