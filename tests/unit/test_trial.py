"""One model, one recipe, one seed: what is measured, and by what it is known again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_cnn import metrics
from mnist_cnn import trial as module
from mnist_cnn.data import Images, Normalisation
from mnist_cnn.engine import Compute
from mnist_cnn.study import Trial
from mnist_cnn.trial import digest_of, fingerprint, measure, without_remarks
from tests.unit.test_training import RECIPE as RECIPE_OF_ONE_EPOCH
from tests.unit.test_views import bar

NORMALISATION = Normalisation(0.5, 0.3)
COMPUTE = Compute(torch.device("cpu"), "native")
RECIPE = RECIPE_OF_ONE_EPOCH.model_copy(update={"epochs": 2, "ema_decay": 0.9, "dropout": 0.0})
TRIAL = Trial("model_6", RECIPE, 1, None, tested=True)


def images(count: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    return Images(torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator), torch.arange(count) % 10)


PARTS = {"train": images(96, 0), "val": images(50, 1), "test": images(70, 2)}


def test_a_trial_tells_of_its_epochs_and_of_all_that_it_measured() -> None:
    epochs: list[int] = []
    record = measure(TRIAL, PARTS, NORMALISATION, COMPUTE, epochs.append)
    assert epochs == [1, 2]
    assert (record["parameters"], record["epochs"]) == (7918, 2)
    by_epoch = record["test_by_epoch"]
    assert [len(by_epoch[weights]) for weights in ("raw", "delivered")] == [2, 2]
    assert record["test_accuracy"] == by_epoch["delivered"][-1]
    # Both say the same of the weights delivered.
    assert record["test_accuracy"] == pytest.approx(100 * (1 - len(record["misread"]) / 70), abs=1e-4)
    assert record["misread"] == sorted(set(record["misread"])) and max(record["misread"]) < 70


def test_raw_weights_are_the_last_steps_and_those_delivered_their_average() -> None:
    averaged = measure(TRIAL, PARTS, NORMALISATION, COMPUTE, print)
    plain_recipe = RECIPE.model_copy(update={"ema_decay": 0.0})
    plain = measure(TRIAL._replace(recipe=plain_recipe), PARTS, NORMALISATION, COMPUTE, print)
    assert plain["test_by_epoch"]["raw"] == plain["test_by_epoch"]["delivered"]
    assert averaged["test_by_epoch"]["raw"] == plain["test_by_epoch"]["raw"]
    assert averaged["val_accuracy_raw"] == plain["val_accuracy"]
    # Half-trained weights and their average do not agree on the accuracy of noise.
    assert averaged["test_by_epoch"]["delivered"] != averaged["test_by_epoch"]["raw"]


def test_images_are_measured_as_the_recipe_has_the_network_see_them() -> None:
    # Two classes that differ by their slant, and by nothing else.
    pixels = torch.cat([bar(0.5), bar(-0.5)]).repeat(48, 1, 1)
    images = Images(pixels, torch.arange(96) % 2)
    parts = {"train": images, "val": images, "test": images}
    recipe = RECIPE.model_copy(update={"epochs": 8, "ema_decay": 0.0, "views": 5})
    for deskew, accuracy in ((False, 100), (True, 50)):
        trial = TRIAL._replace(recipe=recipe.model_copy(update={"deskew": deskew}))
        record = measure(trial, parts, NORMALISATION, COMPUTE, print)
        assert [record[f"{part}_accuracy"] for part in parts] == [accuracy] * 3, deskew
        assert len(record["misread"]) == 96 * (1 - accuracy / 100)


def test_all_parts_are_measured_in_the_views_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()

    def predict(evaluated: object, images: Images, *others: object) -> metrics.Predictions:
        shapes.add(tuple(images.pixels.shape))
        return metrics.Predictions(torch.zeros(len(images.labels), 10), images.labels)

    monkeypatch.setattr(metrics, "predict", predict)
    measure(TRIAL._replace(recipe=RECIPE.model_copy(update={"views": 5})), PARTS, NORMALISATION, COMPUTE, print)
    assert shapes == {(len(images.labels), 5, 28, 28) for images in PARTS.values()}


def test_the_same_trial_gives_the_same_record_and_another_seed_does_not() -> None:
    first, again = (measure(TRIAL, PARTS, NORMALISATION, COMPUTE, print) for _ in range(2))
    other = measure(TRIAL._replace(seed=2), PARTS, NORMALISATION, COMPUTE, print)
    assert first == again
    assert first["misread"] != other["misread"]


def test_what_competes_does_not_see_the_test_set() -> None:
    parts = {name: PARTS[name] for name in ("train", "val")}
    record = measure(TRIAL._replace(tested=False), parts, NORMALISATION, COMPUTE, print)
    assert not [name for name in record if "test" in name or name == "misread"]


def test_widths_are_those_of_the_network() -> None:
    narrow = TRIAL._replace(widths=(2, 2, 2, 2, 2, 2))
    assert measure(narrow, PARTS, NORMALISATION, COMPUTE, print)["parameters"] == 18 + 5 * 36 + 6 * 4 + 30


def test_the_fingerprint_follows_all_that_the_result_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.safetensors"
    file.write_bytes(b"images")
    data = digest_of([file])
    first = fingerprint(TRIAL, data, COMPUTE)
    assert len(first) == 64 and first == fingerprint(TRIAL, data, COMPUTE._replace(threads=2))
    others = [
        fingerprint(other, data, COMPUTE)
        for other in (
            TRIAL._replace(seed=2),
            TRIAL._replace(recipe=RECIPE.model_copy(update={"max_lr": 0.06})),
            TRIAL._replace(widths=(8, 10, 14, 14, 14, 17)),
            TRIAL._replace(model="model_5"),
            TRIAL._replace(tested=False),
        )
    ]
    others.append(fingerprint(TRIAL, data, COMPUTE._replace(engine="torch")))
    file.write_bytes(b"other images")
    others.append(fingerprint(TRIAL, digest_of([file]), COMPUTE))
    monkeypatch.setattr(module, "_CODE", module._CODE[1:])
    others.append(fingerprint(TRIAL, data, COMPUTE))
    assert len({first, *others}) == 1 + len(others)


def test_the_fingerprint_counts_all_code_that_computes() -> None:
    program = """
import sys
from pathlib import Path
from mnist_cnn import trial
package = Path(trial.__file__).parent
files = {Path(m.__file__) for name, m in sys.modules.items() if name.startswith("mnist_cnn") and m.__file__}
print(*(file.relative_to(package).as_posix() for file in files if file.stat().st_size > 200))
"""
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    # Loaded only to build, not Python, and what prepares the process; but not what settings are, errors, files.
    expected = set(ended.stdout.split()) | {"native/kernels.c", "runtime.py", "sources.py"}
    assert {name.replace("**/*", "__init__") for name in module._CODE} == expected - {
        "params.py",
        "errors.py",
        "files.py",
        "study.py",
    }


def test_a_remark_leaves_the_fingerprint_and_a_change_of_code_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mnist_cnn"
    shutil.copytree(Path(module.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(package / "trial.py"))
    first = fingerprint(TRIAL, "data", COMPUTE)
    views = package / "views.py"
    code = views.read_text()
    views.write_text(code.replace('"""', '"""Above all: ', 1).replace("_CHUNK = 2000\n", "_CHUNK = 2000  # images\n\n"))
    assert views.read_text() != code
    assert fingerprint(TRIAL, "data", COMPUTE) == first
    for change in ("1000", "(2000"):  # as soon as it is saved, in the middle of a change, too
        views.write_text(code.replace("_CHUNK = 2000\n", f"_CHUNK = {change}\n"))
        assert fingerprint(TRIAL, "data", COMPUTE) != first


def test_what_is_not_a_remark_stays() -> None:
    source = '''"""Of the module,
in two lines."""

# A remark.
NAME = "# none"  # one


class Kind:
    """Of the class."""

    text: str = """
    # none

    """  # a text

    async def method(self):
        """Of the method."""
        "no docstring".split()
        return f"{self.text} # none"  # type: ignore
'''
    assert without_remarks(source).split("\n") == [
        'NAME = "# none"',
        "class Kind:",
        '    text: str = """',
        "    # none",
        "",
        '    """',
        "    async def method(self):",
        '        "no docstring".split()',
        '        return f"{self.text} # none"',
        "",
    ]


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ('def f(rate=0.1): "That."', 'def f(rate=0.2): "That."'),
        ('class A(B): "That."', 'class A(C): "That."'),
        ('"""That."""; x = 1', '"""That."""; x = 2'),
        ('x = """\n\n"""', 'x = """\n"""'),
    ],
)
def test_code_beside_a_remark_counts(source: str, other: str) -> None:
    assert without_remarks(source) != without_remarks(other)
