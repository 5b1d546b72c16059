"""Image files of all kinds, whole and damaged."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from mnist_cnn import read_digit
from mnist_cnn.common.errors import InputError
from mnist_cnn.inference.pictures import FORMATS, read_picture, shown, suffixes
from tests.distorted import as_bytes, enlarged, real_digits
from tests.small_mnist import mutated

DIGIT = real_digits()[44]
LARGE = as_bytes(1 - enlarged(DIGIT, 4))


def palette(transparent: bool) -> Image.Image:
    """Of several colours, none of whose numbers says how light it is."""
    image = Image.fromarray(255 - DIGIT).quantize(200)
    if transparent:
        image.info["transparency"] = int(np.asarray(image)[0, 0])
    return image


MODES: dict[str, Callable[[], Image.Image]] = {
    "1": lambda: Image.fromarray(DIGIT > 127),
    "L": lambda: Image.fromarray(DIGIT),
    "LA": lambda: Image.merge("LA", [Image.new("L", (28, 28), 0), Image.fromarray(DIGIT)]),
    "P": lambda: palette(False),
    "P, one colour transparent": lambda: palette(True),
    "RGB": lambda: Image.fromarray(DIGIT).convert("RGB"),
    "RGBA": lambda: Image.fromarray(255 - DIGIT).convert("RGBA"),
    "I;16": lambda: Image.fromarray(DIGIT.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_digit_of_mnist_survives_a_png_of_any_mode(tmp_path: Path, mode: str) -> None:
    MODES[mode]().save(tmp_path / "digit.png")
    difference = np.abs(read_digit(tmp_path / "digit.png").astype(int) - DIGIT)
    assert difference.mean() < (25 if mode in ("1", "P, one colour transparent") else 3 if mode == "P" else 1e-9)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "I", "F", "I;16B"])
def test_a_tiff_may_have_colours_and_levels_of_other_kinds(tmp_path: Path, mode: str) -> None:
    levels = {
        "I": LARGE.astype(np.int32) * 1000,
        "F": LARGE.astype(np.float32) * -3.7,
        "I;16B": LARGE.astype(">u2") * 200,
    }
    if mode in levels:
        Image.fromarray(levels[mode]).save(tmp_path / "digit.tif")
    else:
        Image.fromarray(LARGE).convert("RGB").convert(mode).save(tmp_path / "digit.tif")
    assert np.abs(read_digit(tmp_path / "digit.tif").astype(int) - DIGIT).mean() < 12


@pytest.mark.parametrize("kind", FORMATS)
def test_all_formats_are_read(tmp_path: Path, kind: str) -> None:
    needed = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}.get(kind)
    if needed and not features.check(needed):
        pytest.skip(f"this Pillow has no {kind}")
    # Whatever its name: the content tells.
    Image.fromarray(LARGE).convert("RGB").save(tmp_path / "digit", kind)
    assert np.abs(read_digit(tmp_path / "digit").astype(int) - DIGIT).mean() < 12


def test_the_suffixes_of_formats_are_known() -> None:
    assert {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"} <= suffixes()
    assert not {".eps", ".pdf", ".csv", ".txt", ""} & suffixes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_may_have_been_held_in_any_way(tmp_path: Path, orientation: int) -> None:
    turns = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]
    image = Image.fromarray(DIGIT)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image if turns is None else image.transpose(Image.Transpose(turns))
    turned.save(tmp_path / "digit.png", exif=exif)
    np.testing.assert_array_equal(read_digit(tmp_path / "digit.png"), DIGIT)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(digit) for digit in real_digits()[[44, 3, 88]]]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / "digit", kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read_digit(tmp_path / "digit"), DIGIT)


def test_a_large_picture_is_reduced(tmp_path: Path) -> None:
    Image.fromarray(LARGE).resize((6000, 4000)).save(tmp_path / "large.png")
    assert max(read_picture(tmp_path / "large.png").shape) <= 1000


# ---- What is no picture


def one_line(error: BaseException) -> str:
    assert str(error).isprintable()
    return str(error)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "neither a file nor a folder"),
        (lambda path: os.mkfifo(path), "neither a file nor a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("name,label\n"), "no image"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "no image|damaged"),
        # Pillow would have Ghostscript run it.
        (lambda path: Image.fromarray(LARGE).save(path, "EPS"), "no image"),
        (lambda path: Image.new("1", (20_000, 20_000)).save(path, "PNG"), "too large"),
        (lambda path: Image.new("1", (10_000, 9_500)).save(path, "PNG"), "too large"),
        (lambda path: Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(path, "TIFF"), "damaged"),
        (lambda path: Image.new("L", (50, 50), 255).save(path, "PNG"), "no ink"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    path = tmp_path / "it\n\x1b[31mhas ‮ odd characters.png"
    make(path)
    with pytest.raises(InputError, match=told) as refused:
        read_digit(path)
    assert one_line(refused.value).startswith(f"{shown(path)}: ")


def test_a_name_that_is_too_long_is_told_in_a_line() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_digit("a" * 5000)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_a_damaged_file_is_read_or_refused_and_nothing_is_printed(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "digit"
    Image.fromarray(LARGE).convert("RGB").resize((40, 40)).save(path, kind)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(mutated(path.read_bytes()))
    def read(content: bytes) -> None:
        other = tmp_path / "mutated"
        other.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                made = read_digit(other)
            except InputError as error:
                one_line(error)
            else:
                assert made.shape == (28, 28)

    read()
    assert capfd.readouterr() == ("", "")


@given(st.text())
def test_names_are_shown_in_one_line_without_control_characters(name: str) -> None:
    assert shown(name).isprintable()
    assert not name.isprintable() or shown(name) == name
