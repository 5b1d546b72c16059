"""A trained model as a function from images to the probabilities of their classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import STATISTICS, Images, Normalisation, intensities, load_normalisation
from mnist_cnn.engine.checkpoint import load_weights
from mnist_cnn.engine.device import enough_memory, resolve_device
from mnist_cnn.engine.execution import ExecutionConfig, choose_engine
from mnist_cnn.engine.passes import check_engine
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.models import build
from mnist_cnn.settings.datasets import DataSet, recorded_images
from mnist_cnn.settings.params import Recipe, load

# Where dvc.yaml has the stages write them; a test compares.
WEIGHTS, SPLITS = Path("checkpoints"), Path("data/split")

_Array = TypeVar("_Array", NDArray, Tensor)
_IN_MNISTS_FORM = f"(N, {IMAGE_SIDE}, {IMAGE_SIDE}) or ({IMAGE_SIDE}, {IMAGE_SIDE})"


class Classifier:
    """The probabilities that a trained network gives the ten classes; deskews and augments as its recipe says.

    Several threads may call it; each waits for the others, because the kernels have one memory. ``classes`` has the
    names of the classes in the order of the probabilities, ``data`` what is said of the images.

    Args:
        name: of the model, for messages.
        network: on the device, with trained weights.
        recipe: the one by which it was trained.
        batch_size: images at a time.
        data: what they show.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        normalisation: Normalisation,
        recipe: Recipe,
        execution: ExecutionConfig,
        *,
        batch_size: int,
        data: DataSet,
    ) -> None:
        self.name, self.data, self.classes = name, data, tuple(data.labels)
        self._deskew, self._batch_size = recipe.deskew, batch_size
        self._lock = Lock()
        self._predictor = Predictor(network, normalisation, execution, tta=recipe.tta, batch_size=batch_size)

    def __call__(self, images: _Array) -> _Array:
        """Probabilities ``(N, 10)``, float64, of images ``(N, 28, 28)``; ``(10,)`` of a single one ``(28, 28)``.

        NumPy arrays give an array, PyTorch's tensors a tensor on the CPU.

        Args:
            images: in MNIST's form, light ink on dark: uint8 from 0 (background) to 255, or any float type from 0.0 to
                1.0, which is rounded to that. ``mnist_cnn.inference.digits`` makes other pictures into such.

        Raises:
            InputError: see ``as_pixels``; or logits are not finite.
        """
        logits = self.logits(images)
        probabilities = logits.double().softmax(1).reshape(*images.shape[:-2], logits.shape[1])
        return probabilities.numpy() if isinstance(images, np.ndarray) else probabilities

    def logits(self, images: NDArray | Tensor) -> Tensor:
        """The logits ``(N, 10)``, float32 on the CPU, that the stage ``evaluate`` has of the same images."""
        pixels = as_pixels(images)
        pixels = deskew(pixels) if self._deskew else pixels
        with self._lock, _one_thread(), about(self.name), enough_memory(self._batch_size):
            return self._predictor(Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))).logits


def load_model(name: str | None = None, folder: Path | str = Path()) -> Classifier:
    """A trained model of a project.

    It computes as ``evaluate`` does, with the same engine and to the same bits, where PyTorch was first imported by
    ``from mnist_cnn import load_model``. Otherwise PyTorch may have chosen other instructions, which round otherwise.
    Random state and PyTorch's settings are left alone.

    Args:
        name: of the model; None is the one that ``params.yaml`` presents.
        folder: the project's, with ``params.yaml``, ``checkpoints`` and ``data/split``.

    Raises:
        InputError: there is no such model, or it is not trained yet, or a file is damaged.
    """
    folder = Path(folder)
    settings = load(folder / "params.yaml")
    name = settings.model if name is None else name
    recipe = settings.recipe(name)
    weights, statistics = folder / WEIGHTS / f"{name}.safetensors", folder / SPLITS / STATISTICS
    for file in (weights, statistics):
        if not file.exists():
            raise InputError(f"{name} is not trained yet, there is no {file}: 'make repro' trains all models")
    trained_on = recorded_images(statistics)["data"]
    if trained_on != settings.data:
        raise InputError(
            f"{name} is trained on {trained_on}, and params.yaml has data: {settings.data}; 'make repro' trains it"
        )
    normalisation = load_normalisation(statistics)
    with torch.random.fork_rng(devices=[]):
        network = build(name).eval()
    load_weights(weights, network)
    train = settings.train
    device = resolve_device(train.device)
    with about(name):
        choice = choose_engine(network, ExecutionConfig(device, train.engine, train.precision, torch.get_num_threads()))
        try:
            check_engine(network, normalisation(intensities(_picture_of_noise())), choice.execution)
        except OSError as error:
            raise InputError(
                f"the kernels cannot be kept ({error}); MNIST_CNN_CACHE names another folder for them, and "
                "train.engine: torch does without them"
            ) from None
    size, data = settings.evaluate.batch_size, settings.data_set
    return Classifier(name, network.to(device), normalisation, recipe, choice.execution, batch_size=size, data=data)


def as_pixels(images: NDArray | Tensor) -> Tensor:
    """Images as the library has them: uint8 ``(N, 28, 28)`` on the CPU, 0 is background.

    Args:
        images: ``(N, 28, 28)`` or ``(28, 28)``, uint8, or of a float type from 0.0 to 1.0.

    Raises:
        InputError: they are of another kind, dtype or shape, none at all, not numbers, or out of range.
    """
    if not isinstance(images, np.ndarray | Tensor):
        raise InputError(f"images: {type(images).__name__} is not allowed: a NumPy array or a PyTorch tensor")
    shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if len(shape) not in (2, 3) or shape[-2:] != (IMAGE_SIDE, IMAGE_SIDE):
        raise InputError(f"images: the shape {shape} is not allowed: {_IN_MNISTS_FORM}")
    if 0 in shape:
        raise InputError("images: there is none")
    is_float = images.is_floating_point() if isinstance(images, Tensor) else images.dtype.kind == "f"
    if dtype != "uint8" and not is_float:
        raise InputError(f"images: {dtype} is not allowed: uint8 from 0 to 255, or a float type from 0.0 to 1.0")
    if isinstance(images, Tensor):
        tensor = images.detach().cpu()
    else:
        # A copy of its own, in the order and the byte order that PyTorch knows.
        tensor = torch.from_numpy(images.astype(np.float64 if is_float else np.uint8, order="C"))
    if is_float:
        tensor = _rounded(tensor.double())
    return tensor.reshape(-1, IMAGE_SIDE, IMAGE_SIDE)


def _rounded(images: Tensor) -> Tensor:
    """Intensities from 0.0 to 1.0 as pixels."""
    if images.isnan().any():
        raise InputError("images: NaN is not allowed: floats from 0.0 to 1.0")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise InputError(f"images: {low:g} to {high:g} is not allowed: floats from 0.0 to 1.0, or uint8 from 0 to 255")
    return (images * 255).round().to(torch.uint8)


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch computes in one thread, as in ``evaluate``: with small images that is faster, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _picture_of_noise() -> Tensor:
    """One, uint8 ``(1, 28, 28)``, always the same: what it takes to compare two engines."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (1, IMAGE_SIDE, IMAGE_SIDE), dtype=torch.uint8, generator=generator)
