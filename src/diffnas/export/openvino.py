"""OpenVINO, by way of ONNX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from diffnas.export import onnx
from diffnas.export.graph import Graph

NEEDS = ("onnx", "onnxscript", "openvino")
FILE = "openvino_model.xml"

FP32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""On some CPUs bfloat16 is the runtime's default, which differs from PyTorch by a hundredth."""


def write(graph: Graph, file: Path) -> None:
    """Write a graph in single precision; its batch size is free."""
    import openvino

    between = file.with_name(onnx.FILE)
    onnx.write(graph, between)
    model = openvino.convert_model(between)
    openvino.save_model(model, file, compress_to_fp16=False)
    for left in file.parent.glob(f"{onnx.FILE}*"):
        left.unlink()


def load(file: Path) -> Any:
    """A function of named arrays to the output."""
    import openvino

    model = openvino.Core().compile_model(file, "CPU", FP32)

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        output: npt.NDArray[Any] = model(dict(inputs))[0]
        return output

    return run
