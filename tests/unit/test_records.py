"""The records of trials in files, and the fingerprints by which each is known again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.source import without_comments
from mnist_cnn.study import records as module
from mnist_cnn.study.plan import Trial
from mnist_cnn.study.records import (
    Record,
    digest_of,
    fingerprint,
    fingerprint_of_record,
    load_records,
    remove_other_records,
    save_record,
)
from tests.helpers import NATIVE, RECIPE

TRIAL = Trial("model_6", RECIPE, 1, None, tested=True)
TRIALS = {f"own/model_6-{seed}": TRIAL._replace(seed=seed) for seed in (1, 2)}
PACKAGE = Path(module.__file__).parents[1]


def record(seed: int) -> Record:
    tested = {"test_images": 9, "test_accuracy": 99.5, "test_by_epoch": {"raw": [98.0, 99.0]}, "misclassified": [seed]}
    measured = {"epochs": 2, "parameters": 10, "train_accuracy": 99.0, "val_accuracy": 98.0}
    return {"fingerprint": str(seed), **measured, **tested}


# ---- Files


def test_records_come_back_and_those_that_are_no_longer_planned_go(tmp_path: Path) -> None:
    made = {name: record(trial.seed) for name, trial in TRIALS.items()}
    for name in (*TRIALS, "own/model_1-1"):
        save_record(tmp_path, name, made.get(name, record(0)))
    assert load_records(tmp_path, TRIALS) == made
    (tmp_path / "own/note.txt").touch()
    remove_other_records(tmp_path, TRIALS)
    assert not (tmp_path / "own/note.txt").exists()
    assert fingerprint_of_record(tmp_path, "own/model_1-1") is None
    assert load_records(tmp_path, TRIALS) == made


@pytest.mark.parametrize("changed", [None, ("99.5", "99.6"), ("}", "")], ids=["missing", "by hand", "cut off"])
def test_a_record_that_is_not_as_it_was_written_is_named_and_not_used(
    tmp_path: Path, changed: tuple[str, str] | None
) -> None:
    first, second = TRIALS
    file = tmp_path / f"{second}.json"
    for name, trial in TRIALS.items():
        save_record(tmp_path, name, record(trial.seed))
    if changed:
        assert changed[0] in file.read_text()
        file.write_text(file.read_text().replace(*changed))
    else:
        file.unlink()
    assert fingerprint_of_record(tmp_path, first) == "1"
    assert fingerprint_of_record(tmp_path, second) is None
    with pytest.raises(InputError, match=f"^{file}: .*'make study'[^\n]*$"):
        load_records(tmp_path, TRIALS)


@pytest.mark.parametrize("wrong", [record(1), {key: 1 for key in record(2) if key != "val_accuracy"}])
def test_a_record_of_another_trial_or_version_is_named_and_not_used(tmp_path: Path, wrong: Record) -> None:
    first, second = TRIALS
    save_record(tmp_path, first, record(1))
    save_record(tmp_path, second, wrong)
    with pytest.raises(InputError, match=f"^{tmp_path / second}.json: .*'make study'[^\n]*$"):
        load_records(tmp_path, TRIALS)


# ---- Fingerprints


def test_the_fingerprint_follows_all_that_the_result_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.safetensors"
    file.write_bytes(b"images")
    data = digest_of([file])
    first = fingerprint(TRIAL, data, NATIVE)
    assert len(first) == 64 and first == fingerprint(TRIAL, data, NATIVE._replace(threads=2))
    others = [
        fingerprint(other, data, NATIVE)
        for other in (
            TRIAL._replace(seed=2),
            TRIAL._replace(recipe=RECIPE.model_copy(update={"max_lr": 0.06})),
            TRIAL._replace(widths=(8, 10, 14, 14, 14, 17)),
            TRIAL._replace(model="model_5"),
            TRIAL._replace(tested=False),
        )
    ]
    others.append(fingerprint(TRIAL, data, NATIVE._replace(engine="torch")))
    others.append(fingerprint(TRIAL, data, NATIVE._replace(precision="bfloat16")))
    file.write_bytes(b"other images")
    others.append(fingerprint(TRIAL, digest_of([file]), NATIVE))
    monkeypatch.setattr(module, "_CODE", module._CODE[1:])
    others.append(fingerprint(TRIAL, data, NATIVE))
    assert len({first, *others}) == 1 + len(others)


def is_of(file: str, module_or_package: str) -> bool:
    return file == module_or_package or file.startswith(f"{module_or_package}/")


def test_the_fingerprint_counts_all_code_that_computes() -> None:
    program = """
import sys
from mnist_cnn.study import trial
print(*(m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "mnist_cnn"), sep="\\n")
"""
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = {Path(line).relative_to(PACKAGE).as_posix() for line in ended.stdout.splitlines()}
    loaded = {file for file in loaded if without_comments((PACKAGE / file).read_text()).strip()}
    counted = {file for file in loaded if any(is_of(file, entry) for entry in module._CODE)}
    # Settings count by their values; what writes files, tells of errors and makes the plan changes no result.
    assert {file for file in loaded - counted if not is_of(file, "settings")} == {
        *("__init__.py", "common/errors.py", "common/files.py", "common/sealed.py"),
        *("common/source.py", "common/yaml.py"),
        *("study/plan.py", "study/records.py", "study/settings.py"),
    }
    # Nothing counts in vain: all the rest is loaded, the one module when a network is built.
    assert [entry for entry in module._CODE if not any(is_of(file, entry) for file in counted)] == [
        "models/_sources.py"
    ]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the library that fingerprints are of."""
    copied = tmp_path / "mnist_cnn"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(copied / "study/records.py"))
    return copied


def test_a_comment_leaves_the_fingerprint_and_a_change_of_code_does_not(package: Path) -> None:
    first = fingerprint(TRIAL, "data", NATIVE)
    file = package / "data/deskew.py"
    code = file.read_text()
    file.write_text(code.replace('"""', '"""Above all: ', 1).replace("_CHUNK = 2000\n", "_CHUNK = 2000  # images\n\n"))
    assert "Above all: " in file.read_text() and "# images\n\n" in file.read_text()
    assert fingerprint(TRIAL, "data", NATIVE) == first
    for change in ("1000", "(2000"):  # as soon as it is saved, in the middle of a change, too
        file.write_text(code.replace("_CHUNK = 2000\n", f"_CHUNK = {change}\n"))
        assert fingerprint(TRIAL, "data", NATIVE) != first


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("engine/native/kernels.c", True),
        ("layers/__init__.py", True),
        ("models/model_6.py", True),
        ("models/model_5.py", False),
        ("study/plan.py", False),
    ],
)
def test_the_code_of_the_trials_own_model_counts_kernels_included(package: Path, name: str, counts: bool) -> None:
    first = fingerprint(TRIAL, "data", NATIVE)
    with (package / name).open("a") as file:
        file.write("\nint = 1;\n")
    assert (fingerprint(TRIAL, "data", NATIVE) != first) == counts


def test_what_is_no_comment_stays() -> None:
    source = '''"""Of the module,
in two lines."""

# A comment.
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
    assert without_comments(source).split("\n") == [
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
def test_code_beside_a_docstring_counts(source: str, other: str) -> None:
    assert without_comments(source) != without_comments(other)
