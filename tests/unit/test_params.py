"""What is wrong in params.yaml is refused by its full path; nothing has a default."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from mnist_cnn.common.errors import InputError
from mnist_cnn.models import MODELS
from mnist_cnn.settings.params import load

FILE = Path(__file__).parents[2] / "params.yaml"
TEXT = FILE.read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
# What may be left out: any model but the one presented, and its place in the story.
OPTIONAL = {f"models.{name}" for name in DOCUMENT["models"]} | {
    f"report.story.{name}" for name in DOCUMENT["report"]["story"]
}
PRESENTED = f"models.{DOCUMENT['model']}"
OPTIONAL.remove(PRESENTED)
# What no model can be called, whichever are added.
NO_MODEL = "_none"


def mappings(section: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mapping of the document by its path, with a dot at the end."""
    yield path, section
    for name, value in section.items():
        if isinstance(value, dict):
            yield from mappings(value, f"{path}{name}.")


SETTINGS = [f"{path}{name}" for path, section in mappings(DOCUMENT) for name in section]


def fault_of(file: Path) -> str:
    with pytest.raises(InputError) as error:
        load(file)
    assert all(line.startswith(f"{file}: ") for line in str(error.value).splitlines())
    return str(error.value).replace(f"{file}: ", "")


@pytest.fixture
def document() -> dict[str, Any]:
    changeable: dict[str, Any] = yaml.safe_load(TEXT)
    return changeable


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "changed.yaml"


def change(document: dict[str, Any], setting: str, value: object, file: Path) -> None:
    *path, name = setting.split(".")
    section = document
    for part in path:
        section = section[part]
    section[name] = value
    file.write_text(yaml.safe_dump(document))


def test_the_repositorys_own_settings_are_valid() -> None:
    settings = load(FILE)
    assert settings.model_dump() == DOCUMENT
    assert set(MODELS[:7]) <= set(settings.models) <= set(MODELS)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        # Wrong types.
        ("model", 5, "string"),
        ("split", 3, "dictionary"),
        ("split.train", 55000.0, "integer"),
        ("split.val", True, "integer"),
        ("split.seed", "0", "integer"),
        ("split.method", 1, "'last', 'random' or 'stratified'"),
        ("train.seed", 1.5, "integer"),
        ("train.precision", True, "'float32' or 'bfloat16'"),
        ("models", ["model_5"], "dictionary"),
        ("models.model_3", None, "dictionary"),
        ("models.model_3.epochs", 15.0, "integer"),
        ("models.model_3.epochs", False, "integer"),
        ("models.model_3.batch_size", "many", "integer"),
        ("models.model_3.max_lr", "0.02", "number"),
        ("models.model_3.max_lr", True, "number"),
        ("models.model_3.momentum", None, "number"),
        ("models.model_3.dropout", [0.1], "number"),
        ("models.model_3.augmentation", 0.0, "dictionary"),
        ("models.model_3.augmentation.rotation_deg", "ten", "number"),
        ("evaluate.calibration_bins", 15.0, "integer"),
        ("targets.test_accuracy", "99.4", "number"),
        ("report.story", [], "dictionary"),
        ("report.story.model_1.target", 1, "string"),
        ("report.story.model_1.reference_parameters", 28954, "string"),
        ("report.story.model_1.reference_test_accuracy", "99.05", "number"),
        # Values that are not among those allowed.
        ("split.method", "best", "'last', 'random' or 'stratified'"),
        ("train.device", "gpu", "'auto', 'cpu', 'cuda' or 'mps'"),
        ("train.engine", "fast", "'auto', 'native' or 'torch'"),
        ("train.precision", "float16", "'float32' or 'bfloat16'"),
        ("models.model_3.schedule", "cosine", "'constant' or 'one_cycle'"),
        ("model", NO_MODEL, ", ".join(sorted(DOCUMENT["models"]))),
        ("models", {}, "at least 1"),
        # Out of range, on either side.
        ("split.train", 0, "greater than or equal to 1"),
        ("split.val", 0, "greater than or equal to 1"),
        ("split.seed", -1, "greater than or equal to 0"),
        ("split.seed", 2**32, "less than 4294967296"),
        ("train.seed", -1, "greater than or equal to 0"),
        ("train.seed", 2**32, "less than 4294967296"),
        ("models.model_3.epochs", 0, "greater than or equal to 1"),
        ("models.model_3.epochs", 1001, "less than or equal to 1000"),
        ("models.model_3.batch_size", 1, "greater than or equal to 2"),
        ("models.model_3.batch_size", 60_001, "less than or equal to 60000"),
        ("models.model_3.max_lr", 0.0, "greater than 0"),
        ("models.model_3.max_lr", 10.1, "less than or equal to 10"),
        ("models.model_3.warmup_fraction", -0.1, "greater than or equal to 0"),
        ("models.model_3.warmup_fraction", 1.0, "less than 1"),
        ("models.model_3.momentum", -0.9, "greater than or equal to 0"),
        ("models.model_3.momentum", 1.0, "less than 1"),
        ("models.model_3.weight_decay", -0.0001, "greater than or equal to 0"),
        ("models.model_3.weight_decay", 1.0, "less than 1"),
        ("models.model_3.ema_decay", -0.1, "greater than or equal to 0"),
        ("models.model_3.ema_decay", 1.0, "less than 1"),
        ("models.model_3.adaptive_clipping", -1.0, "greater than or equal to 0"),
        ("models.model_3.dropout", -0.1, "greater than or equal to 0"),
        ("models.model_3.dropout", 1.0, "less than 1"),
        ("models.model_3.augmentation.rotation_deg", -1.0, "greater than or equal to 0"),
        ("models.model_3.augmentation.rotation_deg", 180.1, "less than or equal to 180"),
        ("models.model_3.augmentation.shift_px", -0.1, "greater than or equal to 0"),
        ("models.model_3.augmentation.shift_px", 14.1, "less than or equal to 14"),
        ("models.model_3.augmentation.scale_percent", -1.0, "greater than or equal to 0"),
        ("models.model_3.augmentation.scale_percent", 100.0, "less than 100"),
        ("evaluate.batch_size", 0, "greater than or equal to 1"),
        ("evaluate.calibration_bins", 0, "greater than or equal to 1"),
        ("evaluate.calibration_bins", 1001, "less than or equal to 1000"),
        ("targets.test_accuracy", -0.1, "greater than or equal to 0"),
        ("targets.test_accuracy", 100.1, "less than or equal to 100"),
        ("targets.max_epochs", 0, "greater than or equal to 1"),
        ("targets.parameters_below", 0, "greater than or equal to 1"),
        ("report.misclassified_shown", 0, "greater than or equal to 1"),
        ("report.augmented_digits", 0, "greater than or equal to 1"),
        ("report.story.model_1.reference_train_accuracy", -0.1, "greater than or equal to 0"),
        ("report.story.model_1.reference_train_accuracy", 100.1, "less than or equal to 100"),
        ("report.story.model_1.reference_test_accuracy", -0.1, "greater than or equal to 0"),
        ("report.story.model_1.reference_test_accuracy", 100.1, "less than or equal to 100"),
        # Not a number, and endless.
        ("models.model_3.max_lr", float("nan"), "finite"),
        ("models.model_3.max_lr", float("inf"), "finite"),
        ("models.model_3.augmentation.shift_px", float("nan"), "finite"),
        ("targets.test_accuracy", float("-inf"), "finite"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(
    document: dict[str, Any], file: Path, setting: str, value: object, allowed: str
) -> None:
    change(document, setting, value, file)
    fault = fault_of(file)
    assert fault.startswith(f"{setting}: {value!r} is not allowed")
    assert allowed in fault
    assert len(fault.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("split.train", 1),
        ("split.seed", 2**32 - 1),
        ("models.model_3.epochs", 1000),
        ("models.model_3.batch_size", 60_000),
        ("models.model_3.max_lr", 10),
        ("models.model_3.momentum", 0),
        ("models.model_3.warmup_fraction", 0.999),
        ("models.model_3.augmentation.rotation_deg", 180.0),
        ("models.model_3.augmentation.shift_px", 14),
        ("models.model_3.augmentation.scale_percent", 99.9),
        ("targets.test_accuracy", 100),
        ("report.story.model_1.reference_parameters", None),
        ("report.story.model_1.reference_test_accuracy", None),
        ("report.story", {}),
    ],
)
def test_bounds_are_allowed_themselves(document: dict[str, Any], file: Path, setting: str, value: object) -> None:
    change(document, setting, value, file)
    settings: Any = load(file).model_dump()
    for part in setting.split("."):
        settings = settings[part]
    assert settings == value


def test_the_kernels_compute_in_float32_and_nothing_else(document: dict[str, Any], file: Path) -> None:
    change(document, "train.precision", "bfloat16", file)
    told = "train: precision: 'bfloat16' needs engine: torch; engine: auto computes in float32"
    assert fault_of(file) == told
    document["train"]["engine"] = "torch"
    change(document, "train.precision", "bfloat16", file)
    assert load(file).train.precision == "bfloat16"


@pytest.mark.parametrize(
    ("section", "section_allows"),
    [
        ("", ["model", "split", "train", "models", "evaluate", "targets", "report"]),
        ("split.", ["method", "train", "val", "seed"]),
        ("train.", ["seed", "device", "engine", "precision"]),
        ("models.model_3.", list(DOCUMENT["models"]["model_3"])),
        ("models.model_3.augmentation.", ["rotation_deg", "shift_px", "scale_percent"]),
        ("evaluate.", ["batch_size", "calibration_bins"]),
        ("targets.", ["test_accuracy", "max_epochs", "parameters_below"]),
        ("report.", ["misclassified_shown", "augmented_digits", "story"]),
        ("report.story.model_3.", list(DOCUMENT["report"]["story"]["model_3"])),
    ],
)
def test_an_unknown_setting_is_refused_by_its_path(
    document: dict[str, Any], file: Path, section: str, section_allows: list[str]
) -> None:
    change(document, f"{section}max_lrr", 0.25, file)
    told = f"{section}max_lrr: unknown setting (value 0.25); allowed here: {', '.join(section_allows)}"
    assert fault_of(file) == told


@pytest.mark.parametrize("section", ["models", "report.story"])
def test_an_unknown_model_is_refused_by_its_path(document: dict[str, Any], file: Path, section: str) -> None:
    known = DOCUMENT["models"] if section == "models" else DOCUMENT["report"]["story"]
    change(document, f"{section}.{NO_MODEL}", known["model_3"], file)
    assert fault_of(file) == f"{section}.{NO_MODEL}: no such model; the models are {', '.join(MODELS)}"


def test_the_model_presented_must_be_among_those_trained(document: dict[str, Any], file: Path) -> None:
    del document["models"]["model_5"]
    change(document, "model", "model_5", file)
    allowed = ", ".join(sorted(name for name in DOCUMENT["models"] if name != "model_5"))
    assert fault_of(file) == f"model: 'model_5' is not allowed; allowed: {allowed}"


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting not in OPTIONAL | {PRESENTED}])
def test_a_missing_setting_is_refused_by_its_path(document: dict[str, Any], file: Path, setting: str) -> None:
    path, _, name = setting.rpartition(".")
    del dict(mappings(document))[f"{path}." if path else ""][name]
    file.write_text(yaml.safe_dump(document))
    assert fault_of(file) == f"{setting}: missing"


@pytest.mark.parametrize("setting", sorted(OPTIONAL))
def test_models_that_are_not_presented_may_be_left_out(document: dict[str, Any], file: Path, setting: str) -> None:
    path, _, name = setting.rpartition(".")
    del dict(mappings(document))[f"{path}."][name]
    file.write_text(yaml.safe_dump(document))
    load(file)


def test_no_more_images_are_split_than_there_are(document: dict[str, Any], file: Path) -> None:
    change(document, "split", {"method": "last", "train": 55_000, "val": 5_000, "seed": 0}, file)
    load(file)
    change(document, "split.train", 55_001, file)
    assert fault_of(file) == "split: train + val is 60,001; the training file holds 60,000 images"


@pytest.mark.parametrize(
    ("setting", "text", "advice"),
    [
        ("models.model_3.max_lr", "1e-3", "YAML reads 1e-3 as text: write 0.001"),
        ("models.model_3.max_lr", "'0.5'", "YAML reads 0.5 as text: write 0.5"),
        ("models.model_3.epochs", "1e1", "YAML reads 1e1 as text: write 10"),
    ],
)
def test_a_number_that_yaml_reads_as_text_comes_with_advice_that_can_be_followed(
    document: dict[str, Any], file: Path, setting: str, text: str, advice: str
) -> None:
    change(document, setting, "<text>", file)
    template = file.read_text()
    file.write_text(template.replace("<text>", text))
    assert fault_of(file).endswith(f"; {advice}")
    file.write_text(template.replace("<text>", advice.split("write ")[1]))
    load(file)


@pytest.mark.parametrize("text", ["nan", "inf", "fast"])
def test_text_that_is_no_allowed_number_comes_without_advice(document: dict[str, Any], file: Path, text: str) -> None:
    change(document, "models.model_3.max_lr", text, file)
    assert fault_of(file) == f"models.model_3.max_lr: {text!r} is not allowed: input should be a valid number"


def test_several_faults_take_a_line_each(document: dict[str, Any], file: Path) -> None:
    change(document, "split.seed", -1, file)
    change(document, "models.model_3.max_lrr", 1, file)
    change(document, "train.device", "gpu", file)
    assert [line.split(": ")[0] for line in fault_of(file).splitlines()] == [
        "split.seed",
        "train.device",
        "models.model_3.max_lrr",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"model: [model_5", "not valid YAML"),
        (b"model: model_5\n\tsplit: {}", "not valid YAML"),
        (b"model: 2024-13-45", "not valid YAML"),
        (b"- model_5\n- model_4", "should hold a mapping of sections"),
        (b"model_5", "should hold a mapping of sections"),
        (b"", "should hold a mapping of sections"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(file: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        file.write_bytes(content)
    fault = fault_of(file)
    assert fault.startswith(told)
    assert len(fault.splitlines()) == 1


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert fault_of(tmp_path).startswith("cannot be read")


def test_settings_are_frozen() -> None:
    settings = load(FILE)
    sections: list[BaseModel] = [settings, settings.split, settings.train, settings.evaluate, settings.targets]
    sections += [settings.report, *settings.models.values(), *settings.report.story.values()]
    sections += [recipe.augmentation for recipe in settings.models.values()]
    for section in sections:
        for name, value in section:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(section, name, value)
