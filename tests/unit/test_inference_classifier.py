"""A trained model as a function from images to probabilities."""

import copy
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mnist_cnn
from mnist_cnn import Classifier, load_model
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import STATISTICS, Images, Normalisation
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.inference.classifier import SPLITS, WEIGHTS, as_pixels
from mnist_cnn.models import build
from mnist_cnn.settings.datasets import PUBLISHED
from mnist_cnn.settings.params import load
from tests.distorted import real_digits
from tests.helpers import MNIST, NATIVE, NORMALISATION, RECIPE, ROOT, TORCH

DIGITS = torch.from_numpy(real_digits().copy())
ENGINES = pytest.mark.parametrize("execution", [TORCH, NATIVE], ids=["torch", "native"])


def network(seed: int = 1) -> nn.Module:
    """With running statistics that are not what they began with."""
    torch.manual_seed(seed)
    made = build("model_7")
    made(torch.randn(100, 1, 28, 28))
    return made.eval()


def classifier(execution: ExecutionConfig = TORCH, deskewed: bool = True, tta: bool = True) -> Classifier:
    recipe = RECIPE.model_copy(update={"deskew": deskewed, "tta": tta})
    return Classifier("model_7", network(), NORMALISATION, recipe, execution, batch_size=32, data=MNIST)


@ENGINES
@pytest.mark.parametrize(("deskewed", "tta"), [(False, False), (False, True), (True, False), (True, True)])
def test_probabilities_are_those_of_the_predictors_logits(
    execution: ExecutionConfig, deskewed: bool, tta: bool
) -> None:
    predictor = Predictor(network(), NORMALISATION, execution, tta=tta, batch_size=32)
    seen = deskew(DIGITS) if deskewed else DIGITS
    logits = predictor(Images(seen, torch.zeros(100, dtype=torch.int64))).logits
    classify = classifier(execution, deskewed, tta)
    assert torch.equal(classify.logits(DIGITS), logits)
    probabilities = classify(DIGITS)
    assert torch.equal(probabilities, logits.double().softmax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(100, dtype=torch.float64))


def test_arrays_give_arrays_and_one_image_one_row() -> None:
    classify = classifier()
    expected, array = classify(DIGITS), classify(DIGITS.numpy())
    assert isinstance(expected, Tensor) and isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, expected.numpy())
    one = classify(DIGITS[3].numpy())
    assert one.shape == (10,)
    np.testing.assert_allclose(one, array[3], atol=1e-6)


KINDS = [np.float16, np.float32, np.float64, np.dtype(">f4"), np.dtype("<f8"), torch.bfloat16, torch.float32]


@given(st.sampled_from(KINDS), st.integers(0, 99), st.integers(1, 40))
def test_floats_are_rounded_to_the_pixels_that_they_are(kind: object, start: int, count: int) -> None:
    images = DIGITS[start : start + count]
    levels = images.double() / 255
    given_as = levels.to(kind) if isinstance(kind, torch.dtype) else levels.numpy().astype(kind)  # type: ignore[call-overload]
    pixels = as_pixels(given_as)
    assert pixels.dtype == torch.uint8 and pixels.shape == images.shape
    few_bits = kind is torch.bfloat16
    assert (pixels.int() - images.int()).abs().max() <= (1 if few_bits else 0)


@pytest.mark.parametrize(
    "strange",
    [
        lambda: np.flip(DIGITS.numpy(), axis=2).copy()[:, :, ::-1],
        lambda: np.asfortranarray(DIGITS.numpy()),
        lambda: np.lib.stride_tricks.as_strided(DIGITS.numpy(), writeable=False),
        lambda: DIGITS.permute(0, 2, 1).contiguous().permute(0, 2, 1),
        lambda: (DIGITS.double() / 255).requires_grad_(),
    ],
    ids=["negative strides", "Fortran", "read-only", "permuted", "with gradients"],
)
def test_the_order_in_memory_does_not_matter_and_nothing_is_changed(strange: Callable[[], Any]) -> None:
    classify, images = classifier(), strange()
    before = copy.deepcopy(images)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    assert torch.equal(as_pixels(images), DIGITS)
    assert np.array_equal(classify(images), classify(DIGITS))
    assert bool((images == before).all())
    assert torch.equal(torch.get_rng_state(), random) and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ([[0]], "list"),
        (np.zeros((3, 28, 27), np.uint8), r"\(3, 28, 27\)"),
        (np.zeros((3, 1, 28, 28), np.uint8), r"\(3, 1, 28, 28\)"),
        (torch.zeros(784), r"\(784,\)"),
        (np.zeros((0, 28, 28), np.uint8), "none"),
        (np.zeros((28, 28), np.int64), "int64"),
        (torch.zeros(28, 28, dtype=torch.bool), "bool"),
        (np.zeros((28, 28), complex), "complex128"),
        (np.full((28, 28), np.nan, np.float32), "NaN"),
        (torch.full((2, 28, 28), torch.inf), "0|inf"),
        (np.linspace(0, 255, 784).reshape(28, 28), "0 to 255"),
        (-torch.rand(28, 28) - 0.5, "-1"),
    ],
)
def test_what_are_no_images_is_refused_in_a_line(images: object, named: str) -> None:
    with pytest.raises(InputError, match=f"images: .*{named}") as refused:
        classifier()(images)  # type: ignore[type-var]
    assert str(refused.value).isprintable()


@ENGINES
def test_several_threads_may_call_it(execution: ExecutionConfig) -> None:
    classify = classifier(execution)
    alone = [classify(images) for images in DIGITS.split(20)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(classify, DIGITS.split(20) * 3))
    assert all(torch.equal(one, other) for one, other in zip(alone * 3, together, strict=True))


# ---- load_model


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With all that a trained model needs, of the one that is presented and of model_7."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / SPLITS).mkdir(parents=True)
    write_sealed(tmp_path / SPLITS / STATISTICS, {"mean": NORMALISATION.mean, "std": NORMALISATION.std})
    save_weights(tmp_path / WEIGHTS / "model_7.safetensors", network())
    torch.manual_seed(3)
    save_weights(tmp_path / WEIGHTS / "model_6.safetensors", build("model_6"))
    return tmp_path


def test_a_trained_model_is_loaded_as_it_was_measured(project: Path) -> None:
    random = torch.get_rng_state()
    classify = load_model("model_7", project)
    assert torch.equal(torch.get_rng_state(), random)
    settings = load(project / "params.yaml")
    engine = settings.train.engine
    expected = Classifier(
        "model_7",
        network(),
        Normalisation(NORMALISATION.mean, NORMALISATION.std),
        settings.recipe("model_7"),
        NATIVE if engine == "auto" else ExecutionConfig(torch.device("cpu"), engine),
        batch_size=settings.evaluate.batch_size,
        data=MNIST,
    )
    assert torch.equal(classify.logits(DIGITS), expected.logits(DIGITS))


def test_classes_are_those_that_it_was_trained_on(project: Path) -> None:
    params, statistics = project / "params.yaml", project / SPLITS / STATISTICS
    params.write_text(params.read_text().replace("data: mnist", "data: kmnist", 1))
    with pytest.raises(InputError, match="model_7 is trained on mnist.*kmnist.*'make repro'"):
        load_model("model_7", project)
    write_sealed(statistics, {"mean": 0.1, "std": 0.3, "data": "kmnist", "sums": {}})
    assert load_model("model_7", project).classes == PUBLISHED["kmnist"].classes


def test_without_a_name_it_is_the_model_that_is_presented(project: Path) -> None:
    assert load_model(folder=str(project)).name == load(project / "params.yaml").model


@pytest.mark.parametrize(
    ("spoil", "name", "told"),
    [
        (lambda folder: None, "model_99", "model_99.*model_1, model_2"),
        (lambda folder: None, "model_1", "model_1.*not trained yet.*'make repro'"),
        (lambda folder: (folder / "params.yaml").unlink(), None, "params.yaml: cannot be read"),
        (lambda folder: (folder / "params.yaml").write_text("model: [\n"), None, "params.yaml: .*not valid YAML"),
        (lambda folder: (folder / SPLITS / STATISTICS).unlink(), "model_7", "not trained yet.*'make repro'"),
        (lambda folder: (folder / SPLITS / STATISTICS).write_text("{}"), "model_7", "cannot be read"),
        (lambda folder: truncate(folder / WEIGHTS / "model_7.safetensors"), "model_7", "cannot be read"),
        (
            lambda folder: shutil.copy(
                folder / WEIGHTS / "model_6.safetensors", folder / WEIGHTS / "model_7.safetensors"
            ),
            "model_7",
            "another architecture",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_line(
    project: Path, spoil: Callable[[Path], object], name: str | None, told: str
) -> None:
    spoil(project)
    with pytest.raises(InputError, match=told) as refused:
        load_model(name, project)
    assert str(refused.value).isprintable()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def test_files_are_where_the_pipeline_writes_them() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert f"{WEIGHTS.as_posix()}/${{key}}.safetensors" in stages["train"]["do"]["outs"]
    assert f"{SPLITS.as_posix()}/{STATISTICS}" in stages["split"]["outs"]


# ---- The package


def run(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_to_import_the_package_loads_nothing() -> None:
    heavy = {"torch", "numpy", "scipy", "PIL", "pydantic"}
    assert run(f"import mnist_cnn, sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_the_package_has_what_it_names_and_no_more() -> None:
    assert {name: getattr(mnist_cnn, name).__name__ for name in mnist_cnn.__all__} == {n: n for n in mnist_cnn.__all__}
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        mnist_cnn.nothing_of_that_name  # noqa: B018


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors have other instructions")
@pytest.mark.parametrize(
    ("before", "expected"), [("", "AVX2"), ("import os; os.environ['ATEN_CPU_CAPABILITY'] = 'default'; ", "DEFAULT")]
)
def test_predictions_are_computed_with_the_instructions_of_stages(before: str, expected: str) -> None:
    code = "from mnist_cnn import load_model; import torch; print(torch.backends.cpu.get_cpu_capability())"
    assert run(before + code) == expected
