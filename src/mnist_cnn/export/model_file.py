"""A trained network as the content of an ONNX file."""

import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.data.images import Normalisation
from mnist_cnn.export.graph import FromPixels

# Programs of 2023 and later read it. What it has no operator for, such as GELU, is written with several.
OPSET = 18
INPUT, OUTPUT, BATCH = "pixels", "probabilities", "images"

# A graph is traced for a number of images that is not known, but below that of the chunks in which digits are deskewed.
_FEWER_THAN_A_CHUNK = 1000


def to_onnx(
    name: str, network: nn.Module, normalisation: Normalisation, facts: Mapping[str, str], *, deskew: bool, tta: bool
) -> bytes:
    """The content of an ONNX file that turns pixels into probabilities; equal arguments give equal bytes.

    Its input ``pixels`` is uint8 ``(N, 28, 28)``, 0 is background; its output ``probabilities`` float32 ``(N, 10)``.
    Deskewing, test-time augmentation and normalisation are in the graph, and batch norm in the convolutions before it.

    Args:
        name: of the graph.
        facts: what the file says of itself, by key.

    Raises:
        InputError: PyTorch cannot export the network.

    Source: "Open Neural Network Exchange Intermediate Representation", https://onnx.ai/onnx/repo-docs/IR.html
    """
    whole = FromPixels(network, normalisation, deskewed=deskew, tta=tta)
    try:
        with warnings.catch_warnings():
            # PyTorch warns of its own recurrent layers. Whether a file is right is found by running it.
            warnings.simplefilter("ignore")
            # Without writes to tensors, which those have; nothing else is taken apart.
            program = _in_one_chunk(_traced(whole)).run_decompositions({})
            exported = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
    except Exception as error:  # whatever a network's own code may raise, or PyTorch about it
        # PyTorch wraps it in advice.
        reason = error.__cause__ or error
        fault = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise InputError(f"{name}: PyTorch cannot export the network: {fault}") from None
    assert exported is not None
    model = exported.model_proto
    _remove_traces(model)
    model.graph.name = name
    for fact, value in sorted(facts.items()):
        model.metadata_props.add(key=fact, value=value)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _traced(whole: FromPixels) -> ExportedProgram:
    images = torch.zeros(3, IMAGE_SIDE, IMAGE_SIDE, dtype=torch.uint8)
    shapes = {INPUT: {0: Dim(BATCH, max=_FEWER_THAN_A_CHUNK)}}
    return torch.export.export(whole, (images,), dynamic_shapes=shapes)


def _in_one_chunk(program: ExportedProgram) -> ExportedProgram:
    """A program that does not split what has one part. In ONNX, the number of images would become that of the part."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.split.Tensor and len(node.meta["val"]) == 1:
            for part in node.users:
                part.replace_all_uses_with(node.args[0])
        elif node.target is torch.ops.aten.cat.default and len(node.args[0]) == 1:
            node.replace_all_uses_with(node.args[0][0])
    program.graph.eliminate_dead_code()
    return program


def _remove_traces(model: Any) -> None:  # noqa: ANN401
    """Remove what tells where and from which code a graph was traced; name its batch."""
    graph = model.graph
    # Without the kind of build, for which GPUs: a file does not depend on it.
    model.producer_version = model.producer_version.partition("+")[0]
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
