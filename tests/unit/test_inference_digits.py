"""Pictures of digits, made into what MNIST has."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from mnist_cnn import as_digit
from mnist_cnn.common.errors import InputError
from tests.distorted import DISTORTED, Bytes, as_bytes, black, cropped, enlarged, real_digits

DIGITS = real_digits()

KINDS: dict[str, Callable[[Bytes], NDArray]] = {
    "uint8": lambda digit: digit,
    "uint16": lambda digit: digit.astype(np.uint16) * 257,
    "float32": lambda digit: (digit / 255).astype(np.float32),
    "float64": lambda digit: digit / 255,
    "RGB": lambda digit: np.stack([digit] * 3, axis=2),
    "opaque": lambda digit: np.stack([*[digit] * 3, np.full_like(digit, 255)], axis=2),
}


def difference(one: Bytes, other: Bytes) -> float:
    """Mean over the pixels; the centre of mass may have been rounded to a neighbouring one."""
    shifts = itertools.product((-1, 0, 1), repeat=2)
    return min(float(np.abs(np.roll(one, shift, (0, 1)).astype(float) - other).mean()) for shift in shifts)


def is_in_mnists_form(digit: Bytes) -> bool:
    centre = np.array(ndimage.center_of_mass(digit))
    is_centred = bool((np.abs(centre - 14) <= 0.6).all())
    return digit.shape == (28, 28) and digit.dtype == np.uint8 and max(cropped(digit).shape) == 20 and is_centred


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_mnists_form_comes_back_as_it_is(kind: str) -> None:
    for digit in DIGITS:
        np.testing.assert_array_equal(as_digit(KINDS[kind](digit)), digit)
        np.testing.assert_array_equal(as_digit(KINDS[kind](255 - digit)), digit)


@pytest.mark.parametrize("name", DISTORTED)
def test_a_distorted_digit_is_nearest_to_the_one_that_it_was(name: str) -> None:
    random = np.random.default_rng(0)
    places = range(3, 100, 10)
    made = [as_digit(DISTORTED[name](DIGITS[place], random)) for place in places]
    assert all(map(is_in_mnists_form, made))
    nearest = [int(np.abs(DIGITS.astype(int) - digit).mean((1, 2)).argmin()) for digit in made]
    # Where little is left of a digit, one of a hundred others may be nearer; shadows may be taken for ink.
    found = sum(one == place for one, place in zip(nearest, places, strict=True))
    assert found >= (7 if "shadow" in name else 9)


# ---- What must not matter


digits = st.sampled_from(list(DIGITS))
FEW = settings(max_examples=30)


@FEW
@given(digits, st.integers(3, 12), st.booleans(), st.sampled_from(sorted(KINDS)))
def test_size_polarity_and_kind_of_numbers_hardly_matter(digit: Bytes, times: int, inverted: bool, kind: str) -> None:
    picture = as_bytes(enlarged(digit, times))
    made = as_digit(KINDS[kind](255 - picture if inverted else picture))
    assert difference(made, as_digit(as_bytes(enlarged(digit, 6)))) < 15


@FEW
@given(digits, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_where_on_the_sheet_a_digit_is_does_not_matter(
    digit: Bytes, above: int, below: int, left: int, right: int
) -> None:
    picture = as_bytes(1 - enlarged(digit, 4))
    around = np.pad(picture, ((above, below), (left, right)), constant_values=255)
    assert difference(as_digit(around), as_digit(picture)) < 1


@FEW
@given(digits, st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(0, 1)] * 3))
def test_any_two_colours_that_differ_will_do(digit: Bytes, paper: tuple[float, ...], ink: tuple[float, ...]) -> None:
    if np.abs(np.subtract(ink, paper)).max() < 0.2:
        return
    picture = np.array(paper) + np.subtract(ink, paper) * enlarged(digit, 4)[..., None]
    assert difference(as_digit(picture), as_digit(enlarged(digit, 4))) < 4


@FEW
@given(digits, st.tuples(*[st.floats(0, 1)] * 3))
def test_a_drawing_on_nothing_is_seen_by_its_opacity_whatever_its_colour(digit: Bytes, colour: tuple[float]) -> None:
    ink = enlarged(digit, 4)
    picture = np.concatenate([np.broadcast_to(colour, (*ink.shape, 3)), ink[..., None]], axis=2)
    assert difference(as_digit(picture), as_digit(ink)) < 1


def test_a_sheet_with_nothing_around_it_is_seen_by_its_colours() -> None:
    sheet = as_bytes(1 - enlarged(DIGITS[44], 4))
    card = np.stack([*[sheet] * 3, np.full_like(sheet, 255)], axis=2)
    card[:5, :5, 3] = 0
    framed = np.pad(card, ((20, 30), (40, 0), (0, 0)))
    assert difference(as_digit(framed), as_digit(sheet)) < 1


@FEW
@given(digits, st.integers(3, 8))
def test_what_was_made_is_not_made_again(digit: Bytes, times: int) -> None:
    made = as_digit(as_bytes(enlarged(digit, times)))
    np.testing.assert_array_equal(as_digit(made), made)


# ---- Pens, dirt and nothing


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_thin_line_is_widened_to_what_mnist_has(width: int) -> None:
    y, x = np.mgrid[:600, :600]
    ring = np.abs(np.hypot(y - 300, x - 310) - 200) <= width / 2
    made = as_digit(~ring)
    # Along the middle row: two strokes, each of which has the ink of two pixels at least.
    row = made[13:15].mean(0) / 255
    assert row.max() > 0.9 and 4 < row.sum() < 7
    assert made[13:15, 13:15].max() == 0


def test_strokes_that_are_wide_enough_stay() -> None:
    wide = DIGITS[39]
    assert difference(as_digit(black(wide)), wide) < 10


def test_dirt_neither_moves_nor_shrinks_a_digit() -> None:
    picture = as_bytes(1 - enlarged(DIGITS[22], 8))
    dirty = picture.copy()
    dirty[2:5, 2:5], dirty[-4:-1, 100:102] = 0, 40
    np.testing.assert_array_equal(as_digit(dirty), as_digit(picture))


def test_a_digit_of_several_parts_keeps_them() -> None:
    picture = as_bytes(1 - enlarged(DIGITS[59], 6))
    split = picture.copy()
    split[80:84] = 255
    made = as_digit(split)
    assert is_in_mnists_form(made) and difference(made, as_digit(picture)) < 12


y, x = np.mgrid[-1:1:200j, -1:1:300j]
NOTHING = {
    "black": np.zeros((28, 28), np.uint8),
    "grey": np.full((50, 40), 0.3),
    "one pixel": np.ones((1, 1)),
    "one line": np.full((1, 300), 77, np.uint8),
    "light from one side": 0.6 + 0.2 * y + 0.1 * x,
    "dark corners": 0.9 - 0.2 * (y**2 + x**2),
    "uniform noise": np.random.default_rng(0).random((200, 300)),
    "normal noise": (0.5 + np.random.default_rng(0).normal(0, 0.08, (900, 1200))).clip(0, 1),
    "a speck": np.where(np.hypot(y, x) < 0.01, 0.0, 1.0),
    "transparent": np.zeros((50, 40, 4), np.uint8),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_picture_without_ink_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no ink"):
        as_digit(NOTHING[name])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1 << 32), st.sampled_from([1, 3, 4]))
def test_any_picture_becomes_a_digit_or_is_refused(height: int, width: int, seed: int, channels: int) -> None:
    shape = (height, width) if channels == 1 else (height, width, channels)
    picture = np.random.default_rng(seed).choice(np.array([0, 0, 0, 3, 200, 255], np.uint8), shape)
    before = picture.copy()
    try:
        made = as_digit(picture)
    except InputError as error:
        assert "no ink" in str(error)
    else:
        assert made.shape == (28, 28) and made.dtype == np.uint8 and made.max() == 255
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        ([[0.0]], "list"),
        (np.zeros(28), r"\(28,\)"),
        (np.zeros((28, 28, 2)), r"\(28, 28, 2\)"),
        (np.zeros((2, 28, 28, 3)), r"\(2, 28, 28, 3\)"),
        (np.zeros((0, 28)), r"\(0, 28\)"),
        (np.zeros((28, 28), np.int64), "int64"),
        (np.zeros((28, 28), complex), "complex"),
        (np.full((28, 28), np.nan), "nan"),
        (np.linspace(0, 255, 784).reshape(28, 28), "0 to 255"),
        (np.linspace(-1, 1, 784).reshape(28, 28), "-1 to 1"),
    ],
)
def test_what_is_no_picture_is_refused_by_what_it_is(picture: NDArray, named: str) -> None:
    with pytest.raises(InputError, match=f"picture: .*{named}.* is not allowed: "):
        as_digit(picture)
