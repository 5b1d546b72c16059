"""The benchmark's arithmetic and its table; tests/pipeline runs it for real."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from benchmark import BATCH_SIZE, compare, gpu, gpu_pack, profiling, worker
from benchmark.table import headline, render
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.native import build as kernels
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.models import build
from tests.helpers import NATIVE, NORMALISATION, ROOT, bar, squares


def run(start: float, epoch: float, memory: float = 500.0) -> dict[str, Any]:
    ends = [100.0 + start + epoch]
    return {"spawned": 100.0, "began": 100.0 + start, "ends": ends, "peak_memory_mb": memory, "share": 1}


CLASSICAL = [run(4, 40), run(5, 60), run(4, 50)]
TORCH = [run(3, 15), run(3, 12), run(2, 30)]
BFLOAT16 = [run(3, 10), run(3, 9), run(2, 15)]
OWN = [run(3, 5, 700), run(3, 6, 720), run(2, 10, 710)]
RUNS = {"classical": CLASSICAL, "torch": TORCH, "bfloat16": BFLOAT16, "own": OWN}


def test_a_share_of_an_epoch_counts_what_does_not_grow_with_it_once() -> None:
    # To make ready 2 s, to begin an epoch 1 s, a batch 0.5 s, ten batches 5 s.
    share = {"began": 10.0, "ends": [13.5, 15.0, 21.0], "share": 4}
    assert compare.epoch_seconds(share) == 2 + 1 + 0.5 + 4 * (10 - 1) * 0.5
    assert compare.epoch_seconds(share | {"share": 1}) == 3.5


@pytest.mark.parametrize(
    ("train", "val", "share", "sizes"),
    [
        (55_000, 5000, 1, [(55_000, 5000)]),
        (55_000, 5000, 4, [(128, 128), (128, 128), (13_750, 1250)]),
        (300, 3, 4, [(75, 1), (75, 1), (75, 1)]),
    ],
)
def test_a_share_of_the_images_follows_two_batches(
    train: int, val: int, share: int, sizes: list[tuple[int, int]]
) -> None:
    assert worker.sizes(train, val, share) == sizes


def test_ways_take_turns_and_the_kernels_alone_see_every_image() -> None:
    asked: list[tuple[str, Any]] = []

    def work(task: str, row: compare.Row, share: int, **options: object) -> dict[str, Any]:
        asked.append((row.name, (task, options.get("engine"), options.get("precision"), share)))
        return run(1, 1)

    rows = [compare.Row("model_5", "model_5", 0.0), compare.Row("model_5, more", "model_5", 0.1)]
    turns = compare.take_turns(work, rows, 2, images=55_000)
    own = [("own", "torch", "float32", 4), ("own", "torch", "bfloat16", 4), ("own", "auto", "float32", 1)]
    one = [("model_5", options) for options in [("classical", None, None, 4), *own]]
    one += [("model_5, more", options) for options in own]
    assert asked == 2 * one
    assert {way: sorted(runs) for way, runs in turns.items()} == {
        "classical": ["model_5"],
        **{way: ["model_5", "model_5, more"] for way in ("torch", "bfloat16", "own")},
    }
    assert compare.runs_of(rows[1], turns)["classical"] is turns["classical"]["model_5"]


Asked = list[tuple[dict[str, Any], Path | None]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What workers were asked for, and where they look for compiled kernels. Their answers are made up."""
    calls: Asked = []

    def run_worker(options: dict[str, Any], timeout: float | None = None, cache: Path | None = None) -> dict[str, Any]:
        calls.append((options, cache))
        share: int = options.get("share", 1)
        ends = [102.0, 103.0, 109.0] if share > 1 else [102.0 + epoch for epoch in range(options["epochs"])]
        found: dict[str, dict[str, Any]] = {
            "compilation": {"seconds": 5.0},
            "limits": {
                "speeds": {"float32": 1e11, "bfloat16": 2e11},
                "flops": dict.fromkeys(options.get("models", []), 1e9),
            },
            "tested": {"test_accuracies": [98.0, 99.5, 99.6]},
        }
        trained: dict[str, Any] = {"began": 101.0, "ends": ends, "share": share, "peak_memory_mb": 500.0}
        return found.get(options["task"], trained) | {"spawned": 100.0}

    monkeypatch.setattr(compare, "run_worker", run_worker)
    return calls


@pytest.fixture
def result(asked: Asked, tmp_path: Path) -> dict[str, Any]:
    """The benchmark of two models, of 55,000 images."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"model": "model_5", "models": {name: params["models"][name] for name in ("model_1", "model_5")}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return compare.compare(tmp_path / "params.yaml", tmp_path, tmp_path, repetitions=2, epochs=3, matrix=64)


def test_the_kernels_are_compiled_anew_where_that_counts_and_nowhere_else(asked: Asked, result: dict[str, Any]) -> None:
    anew = [(options["task"], options["epochs"], cache) for options, cache in asked if cache is not None]
    assert [(task, epochs) for task, epochs, _ in anew] == [("compilation", 1), ("own", 3), ("classical", 3)]
    assert len({cache for *_, cache in anew}) == 3
    # Before all runs that are timed, they are compiled where these look for them.
    usual = [options["task"] for options, cache in asked if cache is None]
    assert usual[:2] == ["limits", "compilation"] and usual[-2:] == ["tested", "tested"]
    assert result["compile_seconds"] == 5.0


def test_each_way_to_the_target_is_tested_by_its_own_weights_as_it_was_trained(
    asked: Asked, result: dict[str, Any]
) -> None:
    race = {options["task"]: options["weights"] for options, _ in asked if options["epochs"] == 3}
    tested = {options["classically"]: options["weights"] for options, _ in asked if options["task"] == "tested"}
    assert tested == {False: race["own"], True: race["classical"]}
    own = result["time_to_target"]["own"]
    assert (own["epoch"], own["seconds"]) == (2, 3.0)


def test_the_result_can_be_written_and_shown(asked: Asked, result: dict[str, Any]) -> None:
    assert [options["matrix"] for options, _ in asked if options["task"] == "limits"] == [result["matrix"]] == [64]
    flops = {name: value for name, value in result["machine"].items() if name.endswith("flops")}
    assert flops == {"float32_flops": 1e11, "bfloat16_flops": 2e11}
    assert list(result["models"]) == ["model_1", "model_5", "model_5, dropout 0.1"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(f"| {name} | " in render(result) for name in result["models"])
    assert "**21.0 times**" in headline(result) and "model_5 reaches 99.4 % after 3 seconds" in headline(result)


def test_a_speedup_is_the_median_of_runs_that_followed_each_other() -> None:
    figures = compare.summarise(RUNS, images=1000, flops=60_000, limit=1e5, compiled=7)
    assert figures["speedup"] == 8
    assert figures["speedup_torch_spread"] == {"median": 3, "least": 2, "largest": 3}
    assert figures["speedup_bfloat16_spread"] == {"median": 1.5, "least": 1.5, "largest": 2}
    assert figures["images_per_second_torch"] == {"median": 67, "least": 33, "largest": 83}
    assert figures["images_per_second_bfloat16"]["median"] == 100
    assert figures["speedup_spread"] == {"median": 8, "least": 5, "largest": 10}
    assert figures["images_per_second"] == {"median": 167, "least": 100, "largest": 200}
    assert figures["images_per_second_classical"] == {"median": 20, "least": 17, "largest": 25}
    assert figures["peak_memory_mb"] == 720 and figures["peak_memory_mb_classical"] == 500
    assert figures["start_seconds"] == 3 and figures["start_seconds_classical"] == 4
    # 60,000 operations in the median epoch's 6 s, of 100,000 a second.
    assert figures["share_of_limit"] == 0.1


def test_a_cold_start_counts_the_process_and_the_compilation() -> None:
    figures = compare.summarise(RUNS, images=1000, flops=1, limit=1, compiled=7)
    assert figures["speedup_cold"] == pytest.approx((4 + 15 * 40) / (7 + 3 + 15 * 5), abs=0.01)


def test_all_models_are_summed_by_repetition_and_compiled_for_once() -> None:
    total = compare.totals({way: [runs, runs[:1] * 3] for way, runs in RUNS.items()}, compiled=7)
    assert total["speedup_total"] == (40 + 40) / (5 + 5)
    assert total["speedup_torch_total_spread"] == {"median": 3, "least": 2.45, "largest": 3}
    assert total["speedup_bfloat16_total"] == pytest.approx((9 + 10) / (6 + 5), abs=0.01)
    assert total["speedup_total_cold"] == pytest.approx(2 * (4 + 15 * 40) / (7 + 2 * (3 + 15 * 5)), abs=0.01)


def test_the_way_to_the_target_ends_with_the_first_epoch_there() -> None:
    trained = {"spawned": 10.0, "began": 12.0, "ends": [15.0, 20.0, 25.0]}
    reached = compare.way_to_target(trained, [99.0, 99.4, 99.3], 99.4)
    assert reached == {"reached": True, "epoch": 2, "seconds": 10.0, "test_accuracies": [99.0, 99.4, 99.3]}
    missed = compare.way_to_target(trained, [99.0, 99.1, 99.3], 99.4)
    assert missed["reached"] is False and missed["epoch"] == 3 and missed["seconds"] == 15.0


@pytest.fixture
def numbers() -> dict[str, Any]:
    """What the table is made of."""
    way = {"reached": True, "epoch": 12, "seconds": 60.0, "test_accuracies": []}
    return {
        "machine": {
            "processor": "A", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11", "torch": "2.15",
            "float32_flops": 1e11, "bfloat16_flops": 3e11,
        },
        "repetitions": 3,
        "matrix": 1024,
        "images": {"train": 1000, "val": 100},
        "share": 4,
        "compile_seconds": 5.0,
        "models": {"model_5": compare.summarise(RUNS, 1000, 60_000, 1e5, 7)},
        **compare.totals({way: [runs] for way, runs in RUNS.items()}, 7),
        "peak_memory_mb": 720,
        "share_of_limit": 0.25,
        "time_to_target": {"test_accuracy": 99.4, "own": way, "classical": way | {"seconds": 480.0}},
        "time_to_target_speedup": 8.0,
    }  # fmt: skip


def test_the_table_shows_each_model_and_the_sum(numbers: dict[str, Any]) -> None:
    text = render(numbers)
    ratios = ["**8.0 times** (5.0 to 10.0)", "7.1 times", "**3.0 times** (2.0 to 3.0)"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[2:] == [["model_5", "20", "67 (100)", "167", *ratios], ["**All, summed**", "", "", "", *ratios]]
    assert {len(row) for row in rows} == {7}
    for shown in ("12 epochs, 60 s", ": **8.0 times** sooner", "**1.5 times** (1.5 to 2.0)", "one part in 4"):
        assert shown in text
    assert "bfloat16 matrix multiplication, 1,024 wide, 300 GFLOP/s (float32: 100)" in text


def test_where_whole_epochs_were_timed_shares_are_not_mentioned(numbers: dict[str, Any]) -> None:
    assert "one part in" not in render(numbers | {"share": 1})


def test_a_loop_that_misses_the_target_gives_a_lower_bound(numbers: dict[str, Any]) -> None:
    numbers["time_to_target"]["classical"]["reached"] = False
    text = render(numbers)
    assert "does not reach it in 12 epochs" in text and ": at least **8.0 times** sooner" in text


def test_where_fit_misses_the_target_there_is_no_ratio(numbers: dict[str, Any]) -> None:
    numbers["time_to_target"]["own"]["reached"] = False
    numbers["time_to_target_speedup"] = None
    text = render(numbers)
    assert "`fit` does not reach it in 12 epochs" in text and "sooner" not in text
    assert "model_5" not in headline(numbers)


def test_the_committed_texts_are_those_of_the_committed_numbers() -> None:
    numbers = json.loads((ROOT / "metrics/benchmark.json").read_text())
    assert render(numbers) == (ROOT / "metrics/benchmark.md").read_text()
    assert headline(numbers) == (ROOT / "metrics/benchmark_headline.md").read_text()


# ---- Workers


def test_a_worker_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(InputError, match=r"limits of _none failed: error: .*_none"):
        compare.run_worker({"task": "limits", "model": "_none", "models": ["_none"], "matrix": 8})
    with pytest.raises(InputError, match=r"limits of model_5 failed: not ready after 0 s"):
        compare.run_worker({"task": "limits", "model": "model_5", "models": ["model_5"], "matrix": 8}, timeout=0.01)


def test_a_worker_takes_the_compiled_kernels_from_the_folder_that_it_is_given(tmp_path: Path) -> None:
    # A library that cannot be loaded shows where it was looked for.
    name = Path(kernels.load()._name).stem.rpartition("-")[0]
    library = tmp_path / f"{name}-{hashlib.sha256(b'no library').hexdigest()[:16]}.so"
    library.write_bytes(b"no library")
    with pytest.raises(InputError, match=f"compilation of model_5 failed: .*{library}"):
        compare.run_worker({"task": "compilation", "model": "model_5"}, cache=tmp_path)


@pytest.mark.parametrize("classically", [False, True])
def test_weights_are_tested_in_their_order_on_images_as_they_were_trained_on(tmp_path: Path, classically: bool) -> None:
    # This model's recipe deskews and averages over views; the classical loop does neither.
    model, as_recipe = "model_6", not classically
    pixels = torch.cat([*(bar(lean / 50) for lean in range(-50, 51)), squares(100).pixels])
    networks = []
    for epoch, seed in ((1, 3), (2, 5), (10, 6)):
        torch.manual_seed(seed)
        networks.append(build(model))
        save_weights(tmp_path / "weights" / f"{epoch:02}.safetensors", networks[-1])
    first, *others = (
        Predictor(network, NORMALISATION, NATIVE, tta=as_recipe, batch_size=BATCH_SIZE)(
            Images(deskew(pixels) if as_recipe else pixels, torch.zeros(len(pixels), dtype=torch.int64))
        ).logits.argmax(1)
        for network in networks
    )
    # Labelled as the first network classifies them.
    save_images(tmp_path / "test.safetensors", Images(pixels, first))
    write_sealed(tmp_path / STATISTICS, NORMALISATION._asdict())
    given = {"params": str(ROOT / "params.yaml"), "splits": str(tmp_path), "weights": str(tmp_path / "weights")}
    found = worker.tested(model=model, classically=classically, **given)["test_accuracies"]
    assert found == [100.0, *(100 * int((other == first).sum()) / len(first) for other in others)]
    assert len(set(found)) == 3
    assert worker.tested(model=model, classically=not classically, **given)["test_accuracies"][0] < 100


def test_matrix_multiplications_are_timed_in_both_precisions() -> None:
    speeds = worker.matmul(matrix=16)
    assert list(speeds) == ["float32", "bfloat16"] and min(speeds.values()) > 0


def test_operations_are_counted_forward_and_backward_two_a_multiplication() -> None:
    # Model 2 has convolutions alone: outputs and their positions by inputs and kernel. Nothing goes back to the images.
    first, others = 6 * 28**2 * 9, [
        12 * 28**2 * 6 * 9,
        *(6 * 14**2 * 12, 12 * 14**2 * 6 * 9, 24 * 14**2 * 12 * 9),
        *(6 * 7**2 * 24, 12 * 7**2 * 6 * 9, 16 * 7**2 * 12 * 9),
        10 * 16 * 7**2,
    ]  # fmt: skip
    expected = 2 * BATCH_SIZE * (2 * first + 3 * sum(others))
    assert worker.flops(models=["model_2"]) == {"model_2": expected}


def test_what_is_missing_or_out_of_range_is_named(tmp_path: Path) -> None:
    counts = {"repetitions": 1, "epochs": 1, "matrix": 1}
    with pytest.raises(InputError, match="raw: is not there"):
        compare.compare(ROOT / "params.yaml", tmp_path / "raw", tmp_path, **counts)
    for name in counts:
        with pytest.raises(InputError, match=f"{name}: 0"):
            compare.compare(ROOT / "params.yaml", tmp_path, tmp_path, **counts | {name: 0})


# ---- On a GPU


def event(name: str, microseconds: float, device: DeviceType = DeviceType.CPU, **more: object) -> Any:  # noqa: ANN401
    """An event of a profile, as far as it is looked at."""
    elapsed = SimpleNamespace(elapsed_us=lambda: microseconds)
    plain = {"is_user_annotation": False, "device_time_total": 0.0, "self_cpu_time_total": microseconds}
    return SimpleNamespace(name=name, time_range=elapsed, device_type=device, **plain | more)


def test_a_profile_tells_apart_what_device_and_processor_do() -> None:
    on_device = DeviceType.CUDA
    found = profiling.summarise(
        [
            event("drawing", 60, is_user_annotation=True),
            event("augmentation", 500, is_user_annotation=True, device_time_total=30.0),
            # The mark again, as the device's time line has it: no work.
            event("augmentation", 900, on_device, is_user_annotation=True),
            event("cudaLaunchKernelExC", 40),
            event("cudaGraphLaunch", 20),
            event("cudaStreamSynchronize", 70),
            event("conv", 100, on_device),
            event("conv", 50, on_device),
            event("Memcpy HtoD (Pageable -> Device)", 10, on_device),
            event("Memcpy DtoD (Device -> Device)", 6, on_device),
        ],
        steps=2,
        on_device=True,
    )
    assert found == {
        "busy_ms": 0.083,
        "operations": 2,
        "copies_ms": 0.005,
        "launches": 1,
        "launching_ms": 0.03,
        "waiting_ms": 0.035,
        "drawing_ms": 0.03,
        "augmentation_ms": 0.015,
        "heaviest": [
            ("conv", 0.075),
            ("Memcpy HtoD (Pageable -> Device)", 0.005),
            ("Memcpy DtoD (Device -> Device)", 0.003),
        ],
    }
    assert profiling.summarise([], 2, on_device=True)["augmentation_ms"] is None


def test_the_verdict_names_what_limits_a_step() -> None:
    kernel = "void at::native::(anonymous namespace)::grid_sampler_2d_kernel<float, int>(at::cuda::TensorInfo<float>)"
    figures = {"steps": 50, "ms": 0.2, "busy_ms": 0.15, "operations": 90.2, "launches": 8, "heaviest": [(kernel, 0.1)]}
    [said] = gpu.verdict("as it is", figures)
    assert "busy 75% of the time, so its own work is the limit; 90 operations and 8 launches a step" in said
    assert said.endswith("Most time takes: `grid_sampler_2d_kernel` 0.100.")
    assert "launching and waiting are the limit" in gpu.verdict("one by one", figures | {"ms": 1.0})[0]


def test_the_settings_name_another_device_and_are_otherwise_the_same() -> None:
    text = (ROOT / "params.yaml").read_text()
    settings = yaml.safe_load(text)
    settings["train"]["device"] = "cuda"
    assert yaml.safe_load(gpu.with_device(text, "cuda")) == settings


def test_what_is_packed_has_this_projects_versions() -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    pins = gpu_pack.pinned(requirements)
    assert [pin.partition("==")[0] for pin in pins] == list(gpu_pack.PACKAGES)
    assert all(f"\n{pin}\n" in f"\n{requirements}" for pin in pins)


def test_of_several_versions_that_of_python_3_12_is_packed() -> None:
    others = "\n".join(f"{name}==1" for name in gpu_pack.PACKAGES[1:])
    old, new = (f"annotated-types=={x} ; python_full_version {y} '3.11'" for x, y in (("1", "<"), ("2", ">=")))
    assert gpu_pack.pinned(f"{old}\n{new}\n{others}\n")[0] == "annotated-types==2"
    with pytest.raises(InputError, match="no single version of annotated-types"):
        gpu_pack.pinned(others)


def test_data_that_is_not_there_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.safetensors, .* not there; 'dvc repro split' makes it"):
        gpu_pack.main(ROOT / "requirements.txt", tmp_path, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
