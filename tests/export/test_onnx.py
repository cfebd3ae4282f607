"""Where the exporter's reading of PyTorch is corrected."""

import torch
from torch import nn

from diffnas.export.graph import Graph
from diffnas.export.onnx import load, write


def test_only_axes_of_one_are_squeezed(tmp_path):
    example = torch.zeros(2, 3, 1)
    graph = Graph(lambda x: x.squeeze(1).squeeze(-1) + 1, nn.Identity(), "y", x=example)
    write(graph, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx")({"x": torch.zeros(4, 3, 1).numpy()}).shape == (4, 3)
