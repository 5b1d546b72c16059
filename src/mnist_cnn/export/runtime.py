"""ONNX files as another program runs them, and how far they agree with this one."""

import math
from typing import Any, NamedTuple

import onnxruntime
import torch
from torch import Tensor

from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.export.model_file import INPUT, OUTPUT


class Agreement(NamedTuple):
    """Probabilities compared, image by image.

    Attributes:
        images: how many were compared.
        different: how many got another class.
        largest_difference: that of any probability, rounded up to a power of ten, as its digits are rounding errors of
            the processor; 0 where there is none.
    """

    images: int
    different: int
    largest_difference: float


def probabilities(model: bytes, pixels: Tensor, batch_size: int) -> Tensor:
    """What an ONNX file's content makes of images: float32 ``(N, 10)`` from uint8 ``(N, 28, 28)``, on the CPU.

    The same on each run: one thread adds in one order.
    """
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = (session.run([OUTPUT], {INPUT: batch.numpy()})[0] for batch in pixels.split(batch_size))
    return torch.cat([torch.from_numpy(batch) for batch in batches])


def agreement(found: Tensor, expected: Predictions) -> Agreement:
    """How far probabilities ``(N, 10)`` agree with this project's own predictions of the same images."""
    largest = float((found.double() - expected.logits.double().softmax(1)).abs().max())
    different = int((found.argmax(1) != expected.logits.argmax(1)).sum())
    return Agreement(len(found), different, 10.0 ** math.ceil(math.log10(largest)) if largest else 0.0)
