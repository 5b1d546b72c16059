"""Where the time of a training step goes, on a GPU in particular."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from mnist_cnn.data.augmentation import draw_changes, transform
from mnist_cnn.data.images import load_splits
from mnist_cnn.engine.device import prepare
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from mnist_cnn.training import fit as training

STEPS = 50
HEAVIEST = 5

# What the processor does on account of a CUDA device, by how it is called.
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
# Of what the device does, all that crosses the bus.
_COPIES = ("Memcpy HtoD", "Memcpy DtoH")


def profile_steps(model: str, params: Path, splits: Path, capture: bool) -> dict[str, Any]:
    """Milliseconds a step of a model's recipe, in an epoch of ``STEPS`` steps and one batch to evaluate on.

    The first epoch makes everything ready, the second is timed, the third profiled.

    Args:
        capture: False launches the operations of each step one by one, also where they could be a CUDA graph.
    """
    settings = load(params)
    execution = prepare(settings.train)
    recipe = settings.models[model].model_copy(update={"epochs": 3})
    data = load_splits(splits, ("train", "val"), recipe.deskew)
    train, val = data.train.first(STEPS * recipe.batch_size), data.val.first(recipe.batch_size)
    torch.manual_seed(settings.train.seed)
    network = build(model, recipe.dropout)
    on_cuda = execution.device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])])
    ends = []

    def mark(epoch: training.Epoch, _: nn.Module) -> None:
        # Each epoch ends with its figures on the processor, so that nothing is still under way.
        ends.append(time.monotonic())
        if epoch.epoch == 2:
            profiler.start()

    few = data._replace(images={"train": train, "val": val})
    with _instrumented(capture):
        training.fit(network, few, recipe, seed=settings.train.seed, execution=execution, on_epoch=mark)
    profiler.stop()
    steps = -(-len(train.labels) // recipe.batch_size)
    events = list(profiler.events() or [])
    return {"steps": steps, "ms": 1000 * (ends[1] - ends[0]) / steps} | summarise(events, steps, on_cuda)


def summarise(events: list[FunctionEvent], steps: int, on_device: bool) -> dict[str, Any]:
    """Milliseconds a step by what was done, from the events of a profile; the device's are None where there is none."""

    def named(names: tuple[str, ...], among: list[FunctionEvent]) -> list[FunctionEvent]:
        return [event for event in among if event.name.startswith(names)]

    def milliseconds(chosen: list[FunctionEvent]) -> float:
        return float(round(sum(event.time_range.elapsed_us() for event in chosen) / 1000 / steps, 4))

    on_cpu = [event for event in events if event.device_type == DeviceType.CPU]
    # Marks are shown on the device, too, as long as what lies between their ends.
    marks = {event.name for event in on_cpu if event.is_user_annotation}
    work = [event for event in events if event.device_type != DeviceType.CPU and event.name not in marks]
    by_name: dict[str, float] = {}
    for event in work if on_device else on_cpu:
        own = event.time_range.elapsed_us() if on_device else event.self_cpu_time_total
        by_name[event.name] = by_name.get(event.name, 0.0) + own / 1000 / steps
    heaviest = sorted(by_name.items(), key=lambda pair: -pair[1])
    augmenting = [event for event in on_cpu if event.name == "augmentation"]
    on_the_device = sum(event.device_time_total for event in augmenting) / 1000 / steps
    return {
        "busy_ms": milliseconds(work) if on_device else None,
        "operations": round(len(work) / steps, 1) if on_device else None,
        "copies_ms": milliseconds(named(_COPIES, work)) if on_device else None,
        "launches": round(len(named(_LAUNCHES, on_cpu)) / steps, 1),
        "launching_ms": milliseconds(named(_LAUNCHES, on_cpu)),
        "waiting_ms": milliseconds(named(_WAITS, on_cpu)),
        "drawing_ms": milliseconds([event for event in on_cpu if event.name == "drawing"]),
        # What a graph replays has no names.
        "augmentation_ms": (round(on_the_device, 4) if on_device else milliseconds(augmenting)) if augmenting else None,
        "heaviest": [(name, round(value, 4)) for name, value in heaviest[:HEAVIEST]],
    }


@contextmanager
def _instrumented(capture: bool) -> Iterator[None]:
    """The library with names for parts of its work, and, if so asked, without CUDA graphs."""
    before = {name: getattr(training, name) for name in ("captured", "draw_changes", "transform")}
    changed: dict[str, Callable[..., Any]] = {
        "draw_changes": _marked("drawing", draw_changes),
        "transform": _marked("augmentation", transform),
    }
    if not capture:
        changed["captured"] = lambda step, *rest: step
    try:
        for name, function in changed.items():
            setattr(training, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(training, name, function)


def _marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def marked(*given: Any) -> Any:  # noqa: ANN401 - whatever the function takes and returns
        with record_function(name):
            return function(*given)

    return marked
