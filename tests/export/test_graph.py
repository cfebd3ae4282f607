"""The networks of pipelines as functions of named tensors."""

from typing import Any

import pytest
import torch

from diffnas.export.graph import graphs
from diffnas.families import Family, Teacher, sd3, unet2d_condition
from tests.models import tiny_sd3, tiny_stable_diffusion, tiny_xl


def teacher(pipeline: Any, family: Family) -> Teacher:
    denoiser = getattr(pipeline, family.component)
    return Teacher("tiny", pipeline, denoiser.eval().requires_grad_(False), family)


@pytest.mark.parametrize(
    ("pipeline", "family", "names"),
    [
        (tiny_stable_diffusion, unet2d_condition.FAMILY, ["encoder_hidden_states"]),
        (tiny_xl, unet2d_condition.FAMILY, ["encoder_hidden_states", "text_embeds", "time_ids"]),
        (tiny_sd3, sd3.FAMILY, ["encoder_hidden_states", "pooled_projections"]),
    ],
)
def test_conditions_are_inputs_by_their_own_names(pipeline, family, names):
    model = teacher(pipeline(), family)
    graph = graphs(model)[family.component]
    assert list(graph.example)[2:] == names
    given = graph.random_inputs(2)
    by_name = {name: given[name] for name in names}
    noisy, times = list(given.values())[:2]
    with torch.no_grad():
        call = model.denoiser(**family.inputs(model.denoiser, noisy, times, by_name))
        assert torch.equal(graph(*given.values()), family.prediction(call))
