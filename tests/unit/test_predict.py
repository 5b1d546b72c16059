"""make predict: which digits are in pictures."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_cnn.common.errors import InputError
from tests.distorted import Bytes, real_digits
from tests.helpers import MNIST, ROOT
from tools import predict

DIGITS = real_digits()


class Nearest:
    """Takes a digit for what the nearest of a hundred is, with a probability of 90 %, or else for the next number."""

    name, data, classes = "nearest", MNIST, MNIST.classes

    def __call__(self, images: Bytes) -> np.ndarray:
        distances = np.abs(images[:, None].astype(int) - DIGITS).sum((2, 3))
        classes = distances.argmin(1) // 10
        probabilities = np.full((len(images), 10), 0.005)
        probabilities[np.arange(len(images)), classes] = 0.9
        probabilities[np.arange(len(images)), (classes + 1) % 10] = 0.06
        return probabilities


Predict = Callable[..., SimpleNamespace]


@pytest.fixture
def predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Calls the command in a folder; returns its status, its lines, and the lines of its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "load_model", lambda name: Nearest())

    def call(images: str, csv: str = "") -> SimpleNamespace:
        status = 0
        try:
            predict.main(images=images, model="", csv=csv)
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, lines=out.splitlines(), errors=err.splitlines())

    return call


def draw(path: Path | str, place: int) -> str:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DIGITS[place]).save(path, "PNG")
    return str(path)


def test_a_line_an_image_says_what_it_is_taken_for(predicted: Predict) -> None:
    draw("five.png", 53), draw("a longer name.png", 97)
    result = predicted("five.png 'a longer name.png'")
    assert (result.status, result.errors) == (0, [])
    head, *lines = result.lines
    assert lines[0].split() == ["five.png", "5", "90.00", "%", "6", "6.00", "%"]
    assert lines[1].split()[3:] == ["9", "90.00", "%", "0", "6.00", "%"]
    assert len(set(map(len, lines))) == 1 and head.startswith("file") and "nearest" in head
    assert not Path("predictions.csv").exists()


def test_of_a_folder_all_images_are_taken_and_written_down(predicted: Predict) -> None:
    for name, place in (("b.png", 11), ("a.PNG", 22), ("c.txt", 33), (".d.png", 44), ("e/f.png", 55)):
        draw(f"folder/{name}", place)
    result = predicted("folder/")
    assert result.status == 0
    table = pd.read_csv("predictions.csv")
    assert table["file"].tolist() == ["folder/a.PNG", "folder/b.png"]
    assert table["class"].tolist() == [2, 1] and table["second"].tolist() == [3, 2]
    np.testing.assert_allclose(table[[f"p{digit}" for digit in range(10)]].sum(axis=1), 1, atol=1e-5)
    assert table["probability"].tolist() == [table["p2"][0], table["p1"][1]]
    assert "predictions.csv" in result.lines[-1]


def test_whatever_cannot_be_read_is_named_and_the_others_go_on(predicted: Predict) -> None:
    # The folder has them written down, too.
    Path("empty.png").touch()
    Path("none").mkdir()
    Path("text.png").write_text("text")
    Image.new("L", (60, 60), 255).save("blank.png")
    names = ["empty.png", "none", "missing.png", "text.png", "blank.png"]
    images = [draw(f"{number}.png", number) for number in range(70)]
    result = predicted(" ".join([*names, *images]))
    assert result.status == 1
    assert len(result.lines) == 73 and len(result.errors) == 5
    for name, line in zip(names, result.errors, strict=True):
        assert line.startswith(f"error: {name}: ")


def test_a_pattern_stands_for_the_files_that_match_it(predicted: Predict) -> None:
    draw("d/a1.png", 3), draw("d/a2.png", 4), draw("d/b.png", 5), draw("[ab].png", 6)
    result = predicted("d/a*.png [ab].png d/x*.png")
    assert [line.split()[0] for line in result.lines[1:]] == ["d/a1.png", "d/a2.png", "[ab].png"]
    assert result.status == 1 and "d/x*.png" in result.errors[0]


@pytest.mark.parametrize("images", ["", "   ", "'a.png", "a.png \\"])
def test_a_line_that_names_nothing_is_refused(predicted: Predict, images: str) -> None:
    with pytest.raises(InputError, match="IMAGES: "):
        predicted(images)


# ---- The table of predictions


def test_a_table_is_replaced_and_nothing_else_is(predicted: Predict) -> None:
    image = draw("1.png", 11)
    assert predicted(image, "new/table.csv").status == 0
    written = Path("new/table.csv").read_text()
    assert predicted(image, "new/table.csv").status == 0
    assert Path("new/table.csv").read_text() == written
    Path("mine.csv").write_text("file,digit\n")
    Path("empty.csv").touch()
    Path("link.csv").symlink_to("mine.csv")
    Path("dangling.csv").symlink_to("nowhere")
    Path("binary.csv").write_bytes(b"\xff\xfe")
    for name in ("mine.csv", "empty.csv", "link.csv", "binary.csv", "dangling.csv", "new", "1.png", "/dev/null"):
        with pytest.raises(InputError, match=f"{name}: is there"):
            predicted(image, name)
    assert Path("mine.csv").read_text() == "file,digit\n" and not Path("empty.csv").read_bytes()


def test_where_nothing_was_predicted_no_table_is_written(predicted: Predict) -> None:
    assert predicted("missing.png", "table.csv").status == 1
    assert not Path("table.csv").exists()


def test_a_table_that_cannot_be_written_is_told_in_a_line(predicted: Predict) -> None:
    image = draw("1.png", 11)
    with pytest.raises(InputError, match=r"1.png/table.csv: cannot be written \("):
        predicted(image, "1.png/table.csv")


# ---- Names


ODD = "a\nb \x1b[31mc\t'\"$(d);‮e .png"


def test_odd_names_are_read_and_shown_in_one_line(predicted: Predict) -> None:
    draw(f"folder/{ODD}", 77), Path("folder/\x07.png").write_text("text")
    result = predicted("folder")
    assert len(result.lines) == 4 and len(result.errors) == 1
    shown = Path("predictions.csv").read_text().splitlines()
    assert len(shown) == 2
    assert all(line.isprintable() for line in [*result.lines, *result.errors, *shown])


def test_names_that_are_no_utf8_are_read_and_shown(predicted: Predict, tmp_path: Path) -> None:
    draw("folder/good.png", 11)
    try:
        Path("folder/good.png").rename(b"folder/\xff.png".decode(errors="surrogateescape"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert predicted("folder").status == 0
    assert pd.read_csv("predictions.csv")["class"].tolist() == [1]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_any_line_is_refused_or_answered_and_never_shown_raw(predicted: Predict, images: str) -> None:
    try:
        result = predicted(images)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert all(line.isprintable() for line in result.errors + result.lines)


@pytest.mark.parametrize("name", ["IMAGES", "by the environment"])
def test_what_is_typed_reaches_the_program_as_it_is(tmp_path: Path, name: str) -> None:
    touched = tmp_path / "touched"
    line = f"'$(shell touch {touched}) `touch {touched}` $(touch {touched}) $HOME; touch {touched} \""
    # An open quote: it is told with the line itself, before any model is looked for.
    make = ["make", "--no-print-directory", "--old-file=.venv/ready", "predict"]
    if name == "IMAGES":
        ended = subprocess.run([*make, f"IMAGES={line}"], cwd=ROOT, capture_output=True, text=True)
    else:
        ended = subprocess.run(["env", f"IMAGES={line}", *make], cwd=ROOT, capture_output=True, text=True)
    assert f"error: IMAGES: {line}: " in ended.stderr and ended.returncode
    assert not touched.exists()
