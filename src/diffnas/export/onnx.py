"""ONNX, run by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch.export import Dim

from diffnas.errors import RunError
from diffnas.export.graph import Graph
from diffnas.refusing import first_sentence

NEEDS = ("onnx", "onnxscript", "onnxruntime")
FILE = "model.onnx"

LARGE = 2**30
"""Bytes of weights from which on they go to a file of their own: a model file ends at 2 GiB."""


def write(graph: Graph, file: Path) -> None:
    """Write a graph; its batch size is free.

    Raises:
        RunError: PyTorch cannot trace the network with any batch size.
    """
    batch = {0: Dim("batch", min=1)}
    try:
        program = torch.onnx.export(
            graph.eval(),
            tuple(graph.example.values()),
            input_names=list(graph.example),
            output_names=[graph.output],
            dynamic_shapes=(tuple(batch for _ in graph.example),),
            custom_translation_table={torch.ops.aten.squeeze.dim: _squeeze},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise RunError(
            f"export: PyTorch cannot trace {type(graph.network).__name__} with a free batch size "
            f"({first_sentence(error.__cause__ or error)}); use it in diffusers"
        ) from error
    assert program is not None
    weights = sum(each.numel() * each.element_size() for each in graph.parameters())
    program.save(file, external_data=weights > LARGE)


def _squeeze(tensor: Any, dim: int) -> Any:
    """``tensor.squeeze(dim)``, which ONNX refuses, and PyTorch ignores, of a longer axis."""
    from onnxscript import opset18

    axes: Any = [dim]
    one = tensor.shape[dim] == 1  # a free batch size never is: it stays an axis
    return opset18.Squeeze(tensor, axes) if one else opset18.Identity(tensor)


def load(file: Path) -> Any:
    """A function of named arrays to the output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        output: npt.NDArray[Any] = session.run(None, dict(inputs))[0]
        return output

    return run
