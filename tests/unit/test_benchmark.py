"""The benchmark's arithmetic and its table; tests/pipeline runs it for real."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark import compare
from benchmark.table import render
from mnist_cnn.errors import InputError


def run(start: float, epoch: float, memory: float = 500.0) -> dict[str, Any]:
    return {"spawned": 100.0, "began": 100.0 + start, "ends": [100.0 + start + epoch], "peak_memory_mb": memory}


CLASSICAL = [run(4, 40), run(5, 60), run(4, 50)]
OWN = [run(3, 5, 700), run(3, 6, 720), run(2, 10, 710)]


def test_a_speedup_is_the_median_of_runs_that_followed_each_other() -> None:
    figures = compare.summarise(CLASSICAL, OWN, images=1000, flops=60_000, limit=1e5, compiled=7)
    assert figures["speedup"] == 8
    assert figures["speedup_spread"] == {"median": 8, "least": 5, "largest": 10}
    assert figures["images_per_second"] == {"median": 167, "least": 100, "largest": 200}
    assert figures["images_per_second_classical"] == {"median": 20, "least": 17, "largest": 25}
    assert figures["peak_memory_mb"] == 720 and figures["peak_memory_mb_classical"] == 500
    assert figures["start_seconds"] == 3 and figures["start_seconds_classical"] == 4
    # 60,000 operations in the median epoch's 6 s, of 100,000 a second.
    assert figures["share_of_limit"] == 0.1


def test_a_cold_start_counts_the_process_and_the_compilation() -> None:
    figures = compare.summarise(CLASSICAL, OWN, images=1000, flops=1, limit=1, compiled=7)
    assert figures["speedup_cold"] == pytest.approx((4 + 15 * 40) / (7 + 3 + 15 * 5), abs=0.01)


def test_all_models_are_summed_by_repetition_and_compiled_for_once() -> None:
    total = compare.totals([(CLASSICAL, OWN), (CLASSICAL[:1] * 3, OWN[:1] * 3)], compiled=7)
    assert total["speedup_total"] == (40 + 40) / (5 + 5)
    assert total["speedup_total_cold"] == pytest.approx(2 * (4 + 15 * 40) / (7 + 2 * (3 + 15 * 5)), abs=0.01)


def test_the_way_to_the_target_ends_with_the_first_epoch_there() -> None:
    trained = {"spawned": 10.0, "began": 12.0, "ends": [15.0, 20.0, 25.0]}
    reached = compare.way_to_target(trained, [99.0, 99.4, 99.3], 99.4)
    assert reached == {"reached": True, "epoch": 2, "seconds": 10.0, "test_accuracies": [99.0, 99.4, 99.3]}
    missed = compare.way_to_target(trained, [99.0, 99.1, 99.3], 99.4)
    assert missed["reached"] is False and missed["epoch"] == 3 and missed["seconds"] == 15.0


@pytest.fixture
def result() -> dict[str, Any]:
    way = {"reached": True, "epoch": 12, "seconds": 60.0, "test_accuracies": []}
    return {
        "machine": {
            "processor": "A", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11", "torch": "2.15",
            "float32_flops": 1e11, "bfloat16_flops": 3e11,
        },
        "repetitions": 3,
        "images": {"train": 1000, "val": 100},
        "compile_seconds": 5.0,
        "models": {"model_5": compare.summarise(CLASSICAL, OWN, 1000, 60_000, 1e5, 7)},
        "speedup_total": 8.123,
        "speedup_total_cold": 7.0,
        "peak_memory_mb": 720,
        "share_of_limit": 0.25,
        "time_to_target": {"test_accuracy": 99.4, "own": way, "classical": way | {"seconds": 480.0}},
        "time_to_target_speedup": 8.0,
    }  # fmt: skip


def test_the_table_shows_each_model_and_the_sum(result: dict[str, Any]) -> None:
    text = render(result)
    assert (
        "| model_5 | 20 (17 to 25) | 167 (100 to 200) | **8.0 times** (5.0 to 10.0) "
        "| 7.1 times, started in 3.0 s (4.0 s) | 720 (500) "
        "| 10% (1%) |" in text
    )
    assert "| **All, summed** | | | **8.1 times** | 7.0 times | 720 at most | 25% |" in text
    assert "`fit` reaches it after 12 epochs, 60 s" in text and ": **8.0 times** sooner" in text
    assert "bfloat16 product of two matrices 2,048 wide, 300 GFLOP/s (float32: 100)" in text


def test_a_loop_that_does_not_arrive_gives_a_lower_bound(result: dict[str, Any]) -> None:
    result["time_to_target"]["classical"]["reached"] = False
    text = render(result)
    assert "does not reach it in 12 epochs" in text and ": at least **8.0 times** sooner" in text


def test_where_fit_does_not_arrive_there_is_no_ratio(result: dict[str, Any]) -> None:
    result["time_to_target"]["own"] = result["time_to_target"]["own"] | {"reached": False}
    result["time_to_target_speedup"] = None
    text = render(result)
    assert "`fit` does not reach it in 12 epochs" in text and "sooner" not in text


def test_a_worker_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(InputError, match=r"benchmark: flops of model_9 failed: error: .*model_9"):
        compare.run_worker(task="flops", model="model_9")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raw: is not there"):
        compare.compare(Path("params.yaml"), tmp_path / "raw", tmp_path, 1)
    with pytest.raises(InputError, match="repetitions: 0"):
        compare.compare(Path("params.yaml"), tmp_path, tmp_path, 0)


def test_the_committed_table_is_that_of_the_committed_numbers() -> None:
    metrics = Path(__file__).parents[2] / "metrics"
    assert render(json.loads((metrics / "benchmark.json").read_text())) == (metrics / "benchmark.md").read_text()
