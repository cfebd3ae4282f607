"""The networks of pipelines as functions of named tensors."""

from typing import Any

import pytest
import torch

from diffnas.export.graph import flat, graphs
from diffnas.families import Family, Teacher, flux, sd3, unet2d, unet2d_condition
from tests.models import tiny_flux, tiny_pipeline, tiny_sd3, tiny_stable_diffusion, tiny_xl


def teacher(pipeline: Any, family: Family) -> Teacher:
    denoiser = getattr(pipeline, family.component)
    return Teacher("tiny", pipeline, denoiser.eval().requires_grad_(False), family)


@pytest.mark.parametrize(
    ("pipeline", "family", "names"),
    [
        (tiny_stable_diffusion, unet2d_condition.FAMILY, ["encoder_hidden_states"]),
        (tiny_xl, unet2d_condition.FAMILY, ["encoder_hidden_states", "text_embeds", "time_ids"]),
        (tiny_sd3, sd3.FAMILY, ["encoder_hidden_states", "pooled_projections"]),
        (tiny_flux, flux.FAMILY, ["encoder_hidden_states", "pooled_projections", "guidance"]),
    ],
)
def test_conditions_are_inputs_by_their_own_names(pipeline, family, names):
    model = teacher(pipeline(), family)
    graph = graphs(model)[family.component]
    assert list(graph.example)[2:] == names
    random = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, *family.sample_shape(model.denoiser), generator=random)
    condition = {name: graph.random_inputs(2)[name] for name in names}
    inputs = family.inputs(model.denoiser, noisy, torch.tensor([3, 700]), condition)
    given = [dict(flat(inputs))[name] for name in graph.example]
    with torch.no_grad():
        assert torch.equal(graph(*given), model.denoiser(**inputs).sample)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_of_two_classes_can_be_called(batch_size):
    graph = graphs(teacher(tiny_pipeline(num_class_embeds=2), unet2d.FAMILY))["unet"]
    assert len(graph(*graph.random_inputs(batch_size).values())) == batch_size
