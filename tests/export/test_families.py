"""What is exported gives what PyTorch gives, of every family and at every batch size."""

from typing import Any

import numpy as np
import pytest
import torch

from diffnas.export import find_format
from diffnas.export.graph import flat, graphs
from tests.families.kinds import KINDS, inputs_of, teacher

ONE_LEVEL = {
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "transformer_layers_per_block": 1,
}

ONE = {"num_layers": 1}

ONE_OF_EACH = {"num_layers": 1, "num_single_layers": 1}

ANOTHER_LAST = {"num_layers": 2, "dual_attention_layers": (0,)}
"""Stable Diffusion 3's last layer is of a form of its own."""

ALPHA = {"use_additional_conditions": True, "attention_head_dim": 12, "cross_attention_dim": 24}
"""PixArt-alpha's: height, width and their ratio are embedded in a third of a stream each."""

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("texts, two encoders", "onnx", ONE_LEVEL),
    ("classes, transformer", "openvino", ONE),
    ("texts, transformer", "onnx", ONE),
    ("texts, transformer", "openvino", ONE | ALPHA),
    ("texts, transformer of two streams", "openvino", ANOTHER_LAST),
    ("texts, distilled guidance", "onnx", ONE_OF_EACH),
    ("texts, shared modulation", "openvino", ONE_OF_EACH),
]
"""Of each family the kind with most inputs, in few layers: each takes PyTorch seconds to trace."""


def test_every_family_is_exported():
    here = {KINDS[kind][1].name for kind, _, _ in CASES}
    elsewhere = {"unet2d"}  # in tests/end_to_end/test_export.py, in both formats
    assert here | elsewhere == {family.name for _, family in KINDS.values()}


@pytest.mark.parametrize(("kind", "form", "smaller"), CASES)
def test_an_exported_denoiser_gives_what_pytorch_gives(kind, form, smaller, tmp_path):
    model, into = teacher(kind, **smaller), find_format(form)
    graph = graphs(model)[model.family.component]
    into.write(graph, tmp_path / into.FILE)
    run = into.load(tmp_path / into.FILE)
    for count in (1, 3):
        inputs = inputs_of(model, count)
        given = {name: each for name, each in flat(inputs) if name in graph.example}
        with torch.no_grad():
            wanted = model.denoiser(**inputs).sample.numpy()
        made = run({name: each.numpy() for name, each in given.items()})
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)
