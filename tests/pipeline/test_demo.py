"""The page that recognises what one draws, in a real browser: it is drawn on, and asks its own server alone."""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import Images, intensities
from mnist_cnn.data.tensors import load_tensors
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.export.model_file import to_onnx
from mnist_cnn.inference.classifier import load_model
from mnist_cnn.inference.digits import as_digit
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from tests.browser import Page, browser_page
from tests.helpers import MNIST, NORMALISATION, ROOT, TORCH
from tests.pipeline.small_project import Project
from tools.demo.server import make_server
from tools.demo.site import site

READY = "import('/main.js').then(page => page.ready)"
# Paints images, one after the other, and returns what the page makes of each.
PAINT = """
(async (images) => {
  const [{ recognise }, ink] = [await import("/main.js"), document.getElementById("ink")];
  const small = new OffscreenCanvas(28, 28);
  const bytes = Uint8Array.from(atob(images), (letter) => letter.charCodeAt(0));
  const [paper, answers] = [ink.getContext("2d"), []];
  for (let start = 0; start < bytes.length; start += 784) {
    const image = new ImageData(28, 28);
    bytes.slice(start, start + 784).forEach((pixel, at) => (image.data[4 * at + 3] = pixel));
    small.getContext("2d").putImageData(image, 0, 0);
    paper.clearRect(0, 0, ink.width, ink.height);
    paper.imageSmoothingEnabled = false;
    paper.drawImage(small, 0, 0, ink.width, ink.height);
    const { pixels, probabilities } = await recognise();
    answers.push([Array.from(pixels), Array.from(probabilities)]);
  }
  return answers;
})
"""


# Draws lines, given as points from 0 to 1 across the paper, and returns the ink and the digit that the page has of it.
DRAW = """
(async (lines) => {
  const [{ recognise }, ink] = [await import("/main.js"), document.getElementById("ink")];
  const [side, paper] = [ink.width, ink.getContext("2d")];
  paper.clearRect(0, 0, side, side);
  [paper.lineWidth, paper.lineCap, paper.lineJoin] = [side / 10, "round", "round"];
  for (const line of lines) {
    paper.beginPath();
    line.forEach(([x, y]) => paper.lineTo(x * side, y * side));
    paper.stroke();
  }
  const { data } = paper.getImageData(0, 0, side, side);
  const opacity = Array.from({ length: side * side }, (_, at) => String.fromCharCode(data[4 * at + 3]));
  return [btoa(opacity.join("")), Array.from((await recognise()).pixels)];
})
"""
DRAWINGS = {
    "0": [[(0.5, 0.2), (0.35, 0.3), (0.3, 0.6), (0.45, 0.8), (0.6, 0.75), (0.7, 0.5), (0.62, 0.25), (0.5, 0.2)]],
    "1": [[(0.45, 0.25), (0.55, 0.15), (0.55, 0.85)]],
    "4, small, in a corner": [[(0.2, 0.1), (0.1, 0.3), (0.3, 0.3)], [(0.22, 0.2), (0.2, 0.45)]],
    "7, broad": [[(0.2, 0.3), (0.85, 0.35), (0.5, 0.7)]],
}


class Answers(NamedTuple):
    """What the page made of images: their form as it recognised them, uint8 ``(N, 28, 28)``, and ``(N, 10)``."""

    pixels: Tensor
    probabilities: Tensor


def paint(page: Page, images: Tensor) -> Answers:
    text = base64.b64encode(images.numpy().tobytes()).decode()
    answers = page.evaluate(f"{PAINT}('{text}')")
    pixels, probabilities = ([answer[part] for answer in answers] for part in (0, 1))
    return Answers(torch.tensor(pixels, dtype=torch.uint8).view(-1, 28, 28), torch.tensor(probabilities))


def printed_digits(count: int) -> Tensor:
    """Digits of a font, of several sizes, turned and moved: uint8 ``(count, 28, 28)``."""
    drawn = []
    for index in range(count):
        image = Image.new("L", (28, 28))
        place = 14 + index % 3 - 1, 14 + index % 5 - 2
        font = ImageFont.load_default(size=16 + index % 7)
        ImageDraw.Draw(image).text(place, str(index % 10), fill=255, font=font, anchor="mm")
        drawn.append(np.asarray(image.rotate(index * 7 % 40 - 20, Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(drawn))


def untrained(name: str, digits: Tensor) -> nn.Module:
    """A model with chance weights whose answers differ from digit to digit."""
    torch.manual_seed(0)
    network = build(name)
    inputs = NORMALISATION(intensities(digits))
    for _ in range(50):
        network(inputs)
    network.eval()
    with torch.no_grad():
        logits, last = network(inputs), list(network.parameters())[-2:]
        last[0].mul_((3 / logits.std(0)).view(-1, 1, 1, 1))
        last[1].copy_((last[1] - logits.mean(0)) * 3 / logits.std(0))
    return network


@pytest.fixture(scope="module")
def runtime() -> Path:
    """What 'make demo' installs."""
    if not shutil.which("npm"):
        pytest.skip("npm is not here, which installs what runs the models")
    command = ["make", "--no-print-directory", "--old-file=.venv/ready", "demo-runtime"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"npm does not get what runs the models: {ended.stderr.strip().splitlines()[-1:]}")
    [folder] = (ROOT / ".venv").glob("onnxruntime-web@*/node_modules/onnxruntime-web/dist")
    return folder


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    digits = printed_digits(100)
    return {"model_5": untrained("model_5", digits), "model_7": untrained("model_7", deskew(digits))}


@pytest.fixture(scope="module")
def models(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models as the pipeline exports them, and the trained one that is presented, if it is there."""
    folder = tmp_path_factory.mktemp("models")
    recipes = load(ROOT / "params.yaml").models
    for name, network in networks.items():
        facts = {"parameters": "7000", "validation_accuracy": "99.1 %", "images": "handwritten digits"}
        facts["classes"] = json.dumps(MNIST.labels)
        recipe = recipes[name]
        content = to_onnx(name, network, NORMALISATION, facts, deskew=recipe.deskew, tta=recipe.tta)
        (folder / f"{name}.onnx").write_bytes(content)
    if (ROOT / "onnx/model_6.onnx").exists():
        shutil.copy(ROOT / "onnx/model_6.onnx", folder)
    return folder


@pytest.fixture(scope="module")
def address(models: Path, runtime: Path) -> Iterator[str]:
    files = {name: models / f"{name}.onnx" for name in ("model_5", "model_6", "model_7")}
    with make_server(site(files, "model_7", runtime), 0) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
        page.open(address, READY)
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    """The page, empty, with the first model."""
    choose(browser, "model_7")
    browser.evaluate("document.getElementById('clear').click()")
    return browser


def choose(page: Page, name: str) -> None:
    page.evaluate(f"document.getElementById('model').value = '{name}'")
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")


def answer(page: Page) -> dict[str, Any]:
    """What the page shows when it has answered."""
    page.evaluate("import('/main.js').then(page => page.recognise())")
    shown: dict[str, Any] = page.evaluate(
        """({
          digit: document.getElementById("answer").textContent,
          ink: document.getElementById("ink").getContext("2d").getImageData(0, 0, 560, 560).data.some(Boolean),
          bars: [...document.querySelectorAll(".fill")].map((bar) => +bar.style.getPropertyValue("--probability")),
          places: [...document.querySelectorAll("main *:not(option, .nib, .fill)")].map((item) => {
            const { x, y, width, height } = item.getBoundingClientRect();
            return [x, y, width, height].join();
          }),
        })"""
    )
    return shown


def places_on_paper(page: Page, stroke: list[tuple[float, float]]) -> list[dict[str, float]]:
    left, top, width, height = page.evaluate(
        "(({ x, y, width, height }) => [x, y, width, height])(document.getElementById('ink').getBoundingClientRect())"
    )
    return [{"x": left + x * width, "y": top + y * height} for x, y in stroke]


@pytest.mark.parametrize("name", ["model_5", "model_7"])
def test_digits_painted_into_the_page_get_the_answers_that_pytorch_gives(
    page: Page, networks: dict[str, nn.Module], name: str
) -> None:
    choose(page, name)
    found = paint(page, printed_digits(100))
    recipe = load(ROOT / "params.yaml").models[name]
    seen = deskew(found.pixels) if recipe.deskew else found.pixels
    predictor = Predictor(networks[name], NORMALISATION, TORCH, tta=recipe.tta, batch_size=100)
    expected = predictor(Images(seen, torch.zeros(100, dtype=torch.long))).logits.softmax(1)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-4)
    assert torch.equal(found.probabilities.argmax(1), expected.argmax(1))
    assert len(expected.argmax(1).unique()) > 5
    # In MNIST's form.
    rows, columns = (found.pixels.amax(axis) > 0 for axis in (2, 1))
    assert torch.equal(torch.maximum(rows.sum(1), columns.sum(1)), torch.full((100,), 20))


def test_mnists_own_digits_are_in_that_form_already_and_get_the_trained_models_answers(page: Page) -> None:
    split = ROOT / "data/split/test.safetensors"
    if not (split.exists() and (ROOT / "onnx/model_6.onnx").exists()):
        pytest.skip("no trained models here; 'make repro' makes them")
    choose(page, "model_6")
    digits = load_tensors(split, ["pixels"], restored_by="'dvc repro'")["pixels"][:200]
    found = paint(page, digits)
    # A few have a longer side of 19 pixels, not 20.
    unchanged = (found.pixels == digits).flatten(1).all(1)
    assert int(unchanged.sum()) >= 198
    expected = load_model("model_6", ROOT)(digits).float()
    assert torch.equal(found.probabilities.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found.probabilities[unchanged], expected[unchanged], rtol=0, atol=1e-4)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_drawing_becomes_the_digit_that_a_file_with_it_becomes(page: Page, drawing: str) -> None:
    ink, pixels = page.evaluate(f"{DRAW}({json.dumps(DRAWINGS[drawing])})")
    side = page.evaluate("document.getElementById('ink').width")
    expected = as_digit(np.frombuffer(base64.b64decode(ink), np.uint8).reshape(side, side))
    difference = np.abs(np.array(pixels, dtype=float).reshape(28, 28) - expected)
    # A file may have noise, so that the faintest rim of its ink does not count; and it is reduced by whole pixels.
    assert difference.mean() < 1.5 and difference.max() < 50


def test_one_draws_with_mouse_finger_and_keys_and_nothing_moves_but_the_bars(page: Page) -> None:
    empty = answer(page)
    assert empty["digit"] == "?" and not empty["ink"] and empty["bars"] == [0] * 10
    start, *way = places_on_paper(page, [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)])

    def with_mouse() -> None:
        for kind, place in (("Pressed", start), *(("Moved", place) for place in way), ("Released", way[-1])):
            page.call("Input.dispatchMouseEvent", type=f"mouse{kind}", button="left", clickCount=1, **place)

    def with_finger() -> None:
        for kind, place in (("Start", start), *(("Move", place) for place in way)):
            page.call("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=[place])
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def with_a_tap() -> None:
        for kind in ("Pressed", "Released"):
            page.call("Input.dispatchMouseEvent", type=f"mouse{kind}", button="left", clickCount=1, **start)

    def with_keys() -> None:
        page.evaluate("document.getElementById('ink').focus()")
        for key in (" ", *["ArrowDown"] * 20, " "):
            press(page, key)

    for draw in (with_mouse, with_finger, with_a_tap, with_keys):
        draw()
        drawn = answer(page)
        assert drawn["ink"], draw.__name__
        # One bar is the longest, and its digit is shown.
        assert drawn["digit"] == str(np.argmax(drawn["bars"])), draw.__name__
        assert sum(drawn["bars"]) == pytest.approx(1, abs=1e-3)
        assert drawn["places"] == empty["places"], draw.__name__
        page.evaluate("document.getElementById('ink').focus()")
        press(page, "Delete")
        assert answer(page) == empty, draw.__name__
    page.evaluate("document.activeElement.blur()")


def press(page: Page, key: str) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key)


def test_another_model_gives_another_answer_to_the_same_drawing(page: Page) -> None:
    paint(page, printed_digits(4)[3:])
    first = answer(page)
    choose(page, "model_5")
    other = answer(page)
    assert other["ink"] and other["bars"] != first["bars"]
    assert other["places"] == first["places"]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_phone_and_a_laptop_show_all_without_scrolling_sideways(page: Page, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 800)
    seen = page.evaluate(
        "[document.documentElement.scrollWidth, document.querySelector('.bars').getBoundingClientRect().bottom]"
    )
    page.call("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    assert seen[0] == width and seen[1] <= 844


def test_the_page_asks_its_own_server_alone_and_complains_of_nothing(page: Page, address: str) -> None:
    asked = {event["request"]["url"] for event in page.of("Network.requestWillBeSent")}
    assert asked and all(url.startswith(address) for url in asked)
    assert [
        e for kind in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") for e in page.of(kind)
    ] == []
    # It could not if it wanted to: another port is another server.
    other = "http://127.0.0.1:9/"
    refused = page.evaluate(
        "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.violatedDirective));"
        f"fetch('{other}').catch(() => {{}}) }})"
    )
    assert refused == "connect-src"
    page.events.clear()


def test_the_server_hands_out_what_is_in_its_list_to_this_computer_alone(address: str) -> None:
    host = address.removeprefix("http://").rstrip("/")

    def status(method: str, path: str, name: str = host) -> int:
        connection = http.client.HTTPConnection(host)
        connection.request(method, path, headers={"Host": name})
        found = connection.getresponse()
        assert "default-src 'none'" in found.headers["Content-Security-Policy"]
        connection.close()
        return found.status

    assert [status("GET", path) for path in ("/", "/main.js?x", "/models/model_7.onnx")] == [200] * 3
    assert [status("HEAD", "/")] == [200]
    for path in ("/params.yaml", "/../server.py", "/%2e%2e/server.py", "/models/", "/models/../main.js"):
        assert status("GET", path) == 404, path
    assert status("GET", "/", "evil.example") == 403
    assert status("POST", "/") == 501


def test_what_is_missing_is_told_in_a_line(tmp_path: Path, models: Path) -> None:
    files = {name: models / f"{name}.onnx" for name in ("model_5", "model_7")}
    with pytest.raises(InputError, match="^[^\n]*'make repro'[^\n]*$"):
        site({"model_7": tmp_path / "model_7.onnx"}, "model_7", tmp_path)
    with pytest.raises(InputError, match="^[^\n]*'make demo'[^\n]*$"):
        site(files, "model_7", tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff")
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="^[^\n]*broken.onnx[^\n]*$"):
        site({"broken": tmp_path / "broken.onnx"}, "broken", tmp_path)
    contents = site(files, "model_6", tmp_path)
    assert json.loads(contents["/models.json"].read())["chosen"] == "model_5"
    with make_server(contents, 0) as server, pytest.raises(InputError, match="^port [^\n]*$"):
        make_server(contents, server.server_port)


def test_make_demo_without_npm_says_so_in_a_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("make", "sh", "bash"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    environment = os.environ | {"PATH": str(tmp_path / "bin")}
    command = ["make", "--no-print-directory", "--old-file=.venv/ready", "demo"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode
    # One make may have started another, as in 'make test'.
    [line] = [line for line in ended.stderr.splitlines() if not re.match(r"make(\[\d+\])?: \*\*\*", line)]
    assert re.match("error: .*npm", line)


def test_the_address_is_printed_and_an_interrupt_ends_it_quietly(models: Path, runtime: Path) -> None:
    options = ["--params", "params.yaml", "--models", str(models), "--runtime", str(runtime), "--port", "0"]
    with Project(ROOT, ROOT).start("python", "-m", "tools.demo", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.search(r"http://127\.0\.0\.1:\d+/", line), line
        process.send_signal(2)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip(), errors) == (0, "", "")
