"""What is wrong in params.yaml is refused by its full path; nothing has a default."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from mnist_cnn.common.errors import InputError
from mnist_cnn.models import MODELS
from mnist_cnn.settings.datasets import DataName
from mnist_cnn.settings.params import Params, load
from mnist_cnn.settings.story import Story, load_story
from mnist_cnn.settings.validation import RENAMED, validate
from mnist_cnn.study.settings import load_study
from tests.helpers import ROOT

FILE = ROOT / "params.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
RECIPE = "models.model_3"
# What no model can be called, whichever are added.
NO_MODEL = "_none"


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT)


def section_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    section = document
    for part in filter(None, path.split(".")):
        section = section[part]
    return section


def put(document: dict[str, Any], setting: str, value: object) -> None:
    path, _, name = setting.rpartition(".")
    section_of(document, path)[name] = value


def faults(document: dict[str, Any]) -> list[str]:
    """The lines of the refusal, without the file's name in front."""
    with pytest.raises(InputError) as error:
        validate(Params, document, "here")
    lines = str(error.value).splitlines()
    assert all(line.startswith("here: ") for line in lines)
    return [line.removeprefix("here: ") for line in lines]


def fault(document: dict[str, Any]) -> str:
    [line] = faults(document)
    return line


def test_the_repositorys_own_settings_are_valid() -> None:
    settings = load(FILE)
    assert settings.model_dump() == DOCUMENT
    assert set(MODELS[:7]) <= set(settings.models) <= set(MODELS)
    assert load_study(ROOT / "study" / "params.yaml", settings)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        # Types are strict, wherever they stand.
        ("model", 5, "string"),
        ("split", 3, "dictionary"),
        ("models", ["model_5"], "dictionary"),
        (f"{RECIPE}", None, "dictionary"),
        (f"{RECIPE}.augmentation", 0.0, "dictionary"),
        ("split.mnist.train", 55000.0, "integer"),
        ("split.mnist.val", True, "integer"),
        ("split.mnist.seed", "0", "integer"),
        (f"{RECIPE}.max_lr", True, "number"),
        (f"{RECIPE}.dropout", [0.1], "number"),
        (f"{RECIPE}.deskew", 1, "boolean"),
        (f"{RECIPE}.tta", 5, "boolean"),
        # Values that are not among those allowed.
        ("data", "emnist", "'mnist', 'fashion_mnist', 'kmnist' or 'custom'"),
        ("split.mnist.method", "best", "'last', 'random' or 'stratified'"),
        ("train.device", "gpu", "'auto', 'cpu', 'cuda' or 'mps'"),
        ("train.engine", "fast", "'auto', 'native' or 'torch'"),
        ("train.precision", "float16", "'float32' or 'bfloat16'"),
        (f"{RECIPE}.schedule", "cosine", "'constant' or 'one_cycle'"),
        ("model", NO_MODEL, ", ".join(DOCUMENT["models"])),
        ("models", {}, "at least 1"),
        # Out of range, on either side.
        ("split.mnist.train", 0, "greater than or equal to 1"),
        ("split.mnist.val", 0, "greater than or equal to 1"),
        ("split.mnist.seed", -1, "greater than or equal to 0"),
        ("split.mnist.seed", 2**32, "less than 4294967296"),
        ("train.seed", -1, "greater than or equal to 0"),
        ("train.seed", 2**32, "less than 4294967296"),
        (f"{RECIPE}.epochs", 0, "greater than or equal to 1"),
        (f"{RECIPE}.epochs", 1001, "less than or equal to 1000"),
        (f"{RECIPE}.batch_size", 1, "greater than or equal to 2"),
        (f"{RECIPE}.batch_size", 60_001, "less than or equal to 60000"),
        (f"{RECIPE}.max_lr", 0.0, "greater than 0"),
        (f"{RECIPE}.max_lr", 10.1, "less than or equal to 10"),
        *(
            (f"{RECIPE}.{name}", value, allowed)
            for name in ("warmup_fraction", "momentum", "weight_decay", "ema_decay", "dropout", "label_smoothing")
            for value, allowed in ((-0.1, "greater than or equal to 0"), (1.0, "less than 1"))
        ),
        (f"{RECIPE}.adaptive_clipping", -1.0, "greater than or equal to 0"),
        (f"{RECIPE}.adaptive_clipping", 1e7, "less than or equal to 1000000"),
        (f"{RECIPE}.augmentation.rotation_deg", -1.0, "greater than or equal to 0"),
        (f"{RECIPE}.augmentation.rotation_deg", 180.1, "less than or equal to 180"),
        (f"{RECIPE}.augmentation.shift_px", -0.1, "greater than or equal to 0"),
        (f"{RECIPE}.augmentation.shift_px", 14.1, "less than or equal to 14"),
        (f"{RECIPE}.augmentation.scale_percent", -1.0, "greater than or equal to 0"),
        (f"{RECIPE}.augmentation.scale_percent", 100.0, "less than 100"),
        ("evaluate.batch_size", 0, "greater than or equal to 1"),
        ("evaluate.calibration_bins", 0, "greater than or equal to 1"),
        ("evaluate.calibration_bins", 1001, "less than or equal to 1000"),
        ("targets.mnist.max_epochs", 0, "greater than or equal to 1"),
        ("targets.mnist.parameters_below", 0, "greater than or equal to 1"),
        ("custom.classes", ["a"], "at least 2"),
        ("custom.title", "", "at least 1"),
        ("report.misclassified_shown", 0, "greater than or equal to 1"),
        ("report.augmented_digits", 0, "greater than or equal to 1"),
        ("targets.mnist.test_accuracy", -0.1, "greater than or equal to 0"),
        ("targets.mnist.test_accuracy", 100.1, "less than or equal to 100"),
        # Not a number, and infinite.
        (f"{RECIPE}.max_lr", float("nan"), "finite"),
        (f"{RECIPE}.augmentation.shift_px", float("inf"), "finite"),
        ("targets.mnist.test_accuracy", float("-inf"), "finite"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(
    document: dict[str, Any], setting: str, value: object, allowed: str
) -> None:
    put(document, setting, value)
    line = fault(document)
    assert line.startswith(f"{setting}: {value!r} is not allowed") and allowed in line


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("split.mnist.train", 1),
        ("split.mnist.seed", 2**32 - 1),
        (f"{RECIPE}.epochs", 1000),
        (f"{RECIPE}.batch_size", 60_000),
        (f"{RECIPE}.max_lr", 10),
        (f"{RECIPE}.momentum", 0),
        (f"{RECIPE}.warmup_fraction", 0.999),
        (f"{RECIPE}.augmentation.rotation_deg", 180.0),
        (f"{RECIPE}.augmentation.shift_px", 14),
        (f"{RECIPE}.augmentation.scale_percent", 99.9),
        ("targets.mnist.test_accuracy", 100),
    ],
)
def test_bounds_are_allowed_themselves(document: dict[str, Any], setting: str, value: object) -> None:
    put(document, setting, value)
    path, _, name = setting.rpartition(".")
    assert section_of(validate(Params, document, "here").model_dump(), path)[name] == value


def test_the_kernels_compute_in_float32_and_nothing_else(document: dict[str, Any]) -> None:
    document["train"]["precision"] = "bfloat16"
    assert fault(document).startswith("train: precision: 'bfloat16' needs engine: torch")
    document["train"]["engine"] = "torch"
    assert validate(Params, document, "here").train.precision == "bfloat16"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "split",
        "split.mnist",
        "train",
        RECIPE,
        f"{RECIPE}.augmentation",
        "evaluate",
        "targets.kmnist",
        "report",
        "custom",
    ],
)
def test_an_unknown_setting_is_refused_by_its_path_with_those_that_are_known(
    document: dict[str, Any], path: str
) -> None:
    allowed = list(section_of(document, path))
    setting = f"{path}.max_lrr".lstrip(".")
    put(document, setting, 0.25)
    line = fault(document)
    assert line.startswith(f"{setting}: unknown setting (value 0.25)")
    assert line.endswith(f": {', '.join(allowed)}")


# ---- Settings that had another name


PLACES = dict.fromkeys(("deslant", "views", "weight_average", "clip_ratio", "warmup_share"), RECIPE) | {
    "misread_shown": "report"
}
OF_THE_STUDY = {"equal": ""}
OF_THE_STORY = ("brief_parameters", "brief_train_accuracy", "brief_test_accuracy")
# In a file of its own now.
MOVED = {"story": "report"}


def test_every_old_name_has_a_place() -> None:
    assert {*PLACES, *OF_THE_STUDY, *OF_THE_STORY, *MOVED} == RENAMED.keys()


def new_name(old: str) -> str:
    return RENAMED[old].split()[0]


@pytest.mark.parametrize("old", PLACES)
def test_a_setting_by_its_old_name_is_refused_with_the_new_one(document: dict[str, Any], old: str) -> None:
    place, new = PLACES[old], new_name(old)
    section = section_of(document, place)
    section[old] = section[new]
    line = fault(document)
    assert line.startswith(f"{place}.{old}: ") and RENAMED[old] in line
    # In place of the new one, as in a file from before.
    del section[new]
    assert sorted(faults(document)) == sorted([line, f"{place}.{new}: missing"])


@pytest.mark.parametrize("old", [*OF_THE_STUDY, *(name for name, place in PLACES.items() if place == RECIPE)])
def test_the_studys_settings_by_their_old_names_are_refused_with_the_new_ones(tmp_path: Path, old: str) -> None:
    study = yaml.safe_load((ROOT / "study" / "params.yaml").read_text())
    if old in OF_THE_STUDY:
        study[old], place = study.pop(new_name(old)), ""
    else:
        study["ablation"]["changes"] = {"a_change": {"recipe": {old: 0.0}}}
        place = "ablation.changes.a_change.recipe: "
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(study))
    with pytest.raises(InputError) as error:
        load_study(file, load(FILE))
    [line] = [line for line in str(error.value).splitlines() if "missing" not in line]
    assert line.startswith(f"{file}: {place}{old}: ") and RENAMED[old] in line


def test_a_setting_that_has_gone_elsewhere_is_refused_with_its_new_place(document: dict[str, Any]) -> None:
    for name, place in MOVED.items():
        line = fault(document | {place: document[place] | {name: {}}})
        assert line.startswith(f"{place}.{name}: ") and RENAMED[name] in line


# ---- What is told of the models, in a file of its own


def story_of(tmp_path: Path, changes: dict[str, Any], data: DataName = "mnist") -> Story:
    file = tmp_path / "story.yaml"
    entry = {
        "target": "x",
        "reference_parameters": "29k",
        "reference_train_accuracy": None,
        "reference_test_accuracy": 100,
    }
    file.write_text(yaml.safe_dump({"data": "mnist", "models": {changes.pop("model", "model_1"): entry | changes}}))
    return load_story(file, data)


def test_the_story_is_valid_and_may_have_no_reference_figures(tmp_path: Path) -> None:
    assert load_story(ROOT / "story.yaml", "mnist").keys() <= set(MODELS)
    assert story_of(tmp_path, {})["model_1"].reference_train_accuracy is None
    assert story_of(tmp_path, {}, "kmnist") == {}


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("reference_parameters", 28954, "string"),
        ("reference_test_accuracy", 100.1, "less than or equal to 100"),
        ("reference", 1, "target, reference_parameters"),
        *((old, 1, RENAMED[old]) for old in OF_THE_STORY),
        ("model", NO_MODEL, ", ".join(MODELS)),
    ],
)
def test_a_wrong_entry_of_the_story_is_refused_by_its_path(
    tmp_path: Path, setting: str, value: object, allowed: str
) -> None:
    with pytest.raises(InputError, match=f"story.yaml: models.*({setting}|{value})") as error:
        story_of(tmp_path, {setting: value})
    assert allowed in str(error.value)


# ---- What fits together, and what may be left out


def test_an_unknown_model_is_refused_by_its_path(document: dict[str, Any]) -> None:
    put(document, f"models.{NO_MODEL}", document["models"]["model_3"])
    line = fault(document)
    assert line.startswith(f"models.{NO_MODEL}: ") and all(name in line for name in MODELS)


def test_the_model_presented_must_be_among_those_trained(document: dict[str, Any]) -> None:
    del document["models"]["model_5"]
    document["model"] = "model_5"
    assert fault(document) == f"model: 'model_5' is not allowed; allowed: {', '.join(document['models'])}"


def test_a_missing_setting_is_refused_by_its_path() -> None:
    small = DOCUMENT | {"model": "model_3", "models": {"model_3": section_of(DOCUMENT, RECIPE)}}
    required = [setting for setting in settings_of(small) if setting != RECIPE]
    for setting in required:
        without = copy.deepcopy(small)
        path, _, name = setting.rpartition(".")
        del section_of(without, path)[name]
        assert fault(without) == f"{setting}: missing"


def settings_of(section: dict[str, Any], path: str = "") -> Iterator[str]:
    """Each setting and section by its path."""
    for name, value in section.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from settings_of(value, f"{path}{name}.")


def test_models_that_are_not_presented_may_be_left_out(document: dict[str, Any]) -> None:
    models = document["models"]
    for name in set(models) - {document["model"]}:
        del models[name]
        validate(Params, document, "here")


def test_no_more_images_are_split_than_there_are(document: dict[str, Any]) -> None:
    document["split"]["kmnist"] |= {"train": 55_000, "val": 5_000}
    # How many images of one's own there are is not known yet.
    document["split"]["custom"] |= {"train": 600_000, "val": 5_000}
    validate(Params, document, "here")
    document["split"]["kmnist"]["train"] += 1
    line = fault(document)
    assert line.startswith("split: kmnist: train + val is 60,001") and "60,000" in line


@pytest.mark.parametrize("name", get_args(DataName))
def test_each_data_set_has_its_own_split_targets_and_classes(document: dict[str, Any], name: DataName) -> None:
    document["data"] = name
    document["split"][name]["val"] = 4_321
    document["targets"][name]["max_epochs"] = 3
    document["custom"]["classes"] = ["cat", "dog"]
    settings = validate(Params, document, "here")
    assert (settings.split.val, settings.targets.max_epochs) == (4_321, 3)
    assert len(settings.data_set.classes) == (2 if name == "custom" else 10)
    assert len(set(settings.data_set.labels)) == 10


def test_an_output_without_a_class_has_the_name_of_none(document: dict[str, Any]) -> None:
    document |= {"data": "custom", "custom": document["custom"] | {"classes": ["5", "6", "7"]}}
    labels = validate(Params, document, "here").data_set.labels
    assert labels[:3] == ["5", "6", "7"] and len(set(labels)) == 10


@pytest.mark.parametrize(("setting", "value"), [("title", "a\nb"), ("images", " "), ("classes", ["cat", "cat"])])
def test_what_is_said_of_ones_own_images_fits_into_a_line(
    document: dict[str, Any], setting: str, value: object
) -> None:
    document["custom"][setting] = value
    assert fault(document).startswith("custom: ")


# ---- Files


@pytest.mark.parametrize(
    ("setting", "text", "number"),
    [("max_lr", "'1e-3'", "0.001"), ("max_lr", "'0.5'", "0.5"), ("epochs", "'10'", "10")],
)
def test_a_number_that_yaml_reads_as_text_comes_with_advice_that_can_be_followed(
    document: dict[str, Any], tmp_path: Path, setting: str, text: str, number: str
) -> None:
    document["models"]["model_3"][setting] = "<text>"
    file = tmp_path / "params.yaml"
    template = yaml.safe_dump(document)
    file.write_text(template.replace("<text>", text))
    with pytest.raises(InputError, match=f"{file}: {RECIPE}.{setting}: .*: write {number}$"):
        load(file)
    file.write_text(template.replace("<text>", number))
    load(file)


@pytest.mark.parametrize("text", ["nan", "inf", "fast"])
def test_text_that_is_no_allowed_number_comes_without_advice(document: dict[str, Any], text: str) -> None:
    put(document, f"{RECIPE}.max_lr", text)
    assert fault(document) == f"{RECIPE}.max_lr: {text!r} is not allowed: input should be a valid number"


def test_several_faults_take_a_line_each(document: dict[str, Any]) -> None:
    put(document, "split.mnist.seed", -1)
    put(document, f"{RECIPE}.max_lrr", 1)
    put(document, "train.device", "gpu")
    assert [line.split(": ")[0] for line in faults(document)] == [
        "split.mnist.seed",
        "train.device",
        f"{RECIPE}.max_lrr",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"model: [model_5", "not valid YAML"),
        (b"model: 2024-13-45", "not valid YAML"),
        (b"- model_5\n- model_4", "mapping of sections"),
        (b"", "mapping of sections"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    file = tmp_path / "params.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"{file}: .*{fault}") as error:
        load(file)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be read"):
        load(tmp_path)


def test_settings_are_frozen() -> None:
    settings = load(FILE)
    for section, name in ((settings, "model"), (settings.models["model_3"].augmentation, "shift_px")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, None)
