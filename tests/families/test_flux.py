"""FLUX.1: packed latents, their size, and guidance that is told."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline

from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.batches import training_batch
from diffnas.families.conditions import GUIDANCE
from diffnas.families.flux import FAMILY
from diffnas.families.loading import load_teacher
from diffnas.student.modeling import DiffNASFluxTransformer2DModel
from tests.families.folders import edit_json
from tests.models import tiny_flux


@cache
def teacher(distilled: bool = True) -> Teacher:
    pipeline = tiny_flux(distilled=distilled)
    return Teacher("flux", pipeline, pipeline.transformer.requires_grad_(False), FAMILY)


def sized(size: Any) -> Any:
    denoiser = tiny_flux().transformer
    denoiser.register_to_config(sample_size=size)
    return denoiser


def call(model: Teacher, count: int = 2) -> tuple[torch.Tensor, dict[str, Any]]:
    noisy = torch.randn(count, *FAMILY.sample_shape(model.denoiser))
    told = FAMILY.example_condition(model.denoiser, count, torch.device("cpu"))
    return noisy, FAMILY.inputs(model.denoiser, noisy, torch.tensor(500), told)


def test_latents_are_packed_as_the_pipeline_does():
    noisy, inputs = call(teacher())
    expected = FluxPipeline._pack_latents(noisy, 2, 4, 8, 8)
    assert torch.equal(inputs["hidden_states"], expected)
    places = FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    assert torch.equal(inputs["img_ids"], places)


def test_a_prediction_is_unpacked():
    noisy, inputs = call(teacher())
    output = SimpleNamespace(sample=inputs["hidden_states"])
    assert torch.equal(FAMILY.prediction(output, (8, 8)), noisy)


def test_places_are_shared_by_as_many_images_as_there_are_tokens():
    model = teacher()
    told = FAMILY.example_condition(model.denoiser, 16, torch.device("cpu"))
    batch = training_batch(model, torch.zeros(16, 4, 8, 8), told, torch.Generator())
    part = batch.rows(slice(0, 8)).rows(torch.arange(4, 8))
    assert part.inputs["img_ids"].shape == (16, 3)
    assert part.inputs["hidden_states"].shape == (4, 16, 16)
    assert FAMILY.prediction(model.denoiser(**part.inputs), part.size).shape == part.target.shape


def test_the_size_is_the_pipelines_own_unless_the_config_has_one():
    denoiser: Any = teacher().denoiser
    config = {name: each for name, each in denoiser.config.items() if name != "sample_size"}
    plain = type(denoiser).from_config(config)
    assert FAMILY.sample_shape(plain) == (4, *[teacher().pipeline.default_sample_size] * 2)
    assert FAMILY.sample_shape(sized(6)) == (4, 6, 6)


def test_a_student_keeps_the_size(tmp_path):
    edits = {"single_transformer_blocks.0": {"kind": "skip"}}
    student = DiffNASFluxTransformer2DModel.from_config(sized(6).config, edits=edits)
    student.save_pretrained(tmp_path)
    again = DiffNASFluxTransformer2DModel.from_pretrained(tmp_path)
    assert FAMILY.sample_shape(again) == (4, 6, 6)


@pytest.mark.parametrize("size", [7, 2, "8", [8, 8], None])
def test_a_size_that_cannot_be_packed_is_refused(size):
    assert "set an even number" in FAMILY.supports(sized(size))


def test_models_that_take_an_image_besides_are_refused():
    denoiser = tiny_flux(in_channels=32, out_channels=16).transformer
    assert "in_channels 32 and out_channels 16" in FAMILY.supports(denoiser)


def test_training_follows_the_shift_of_the_models_size():
    batch = training_batch(
        teacher(),
        torch.zeros(1, 4, 8, 8),
        FAMILY.example_condition(teacher().denoiser, 1, torch.device("cpu")),
        torch.Generator(),
        torch.tensor([499]),
    )
    scheduler = teacher().pipeline.scheduler
    mu = 0.5 + (16 - 256) * (1.15 - 0.5) / (4096 - 256)
    expected = scheduler.time_shift(mu, 1.0, torch.tensor([0.5]))
    torch.testing.assert_close(batch.inputs["timestep"], expected)


def test_the_pipelines_scheduler_stays_as_it_is():
    assert teacher().scheduler.config.use_dynamic_shifting is False
    assert teacher().pipeline.scheduler.config.use_dynamic_shifting is True


@pytest.mark.parametrize(
    ("kind", "scale"),
    [(FluxPipeline, 3.5), (FluxImg2ImgPipeline, 7.0), (FluxInpaintPipeline, 7.0)],
)
def test_training_is_told_the_pipelines_own_guidance(kind, scale):
    model = replace(teacher(), pipeline=kind(**teacher().pipeline.components))
    told = model.told(["a cat", "two dogs"])
    assert told[GUIDANCE].tolist() == [model.guidance()] * 2 == [scale] * 2


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_sampling_tells_the_guidance_that_is_asked_for_in_one_call(guidance):
    model, seen = teacher(), []

    def note(_: Any, __: Any, given: dict[str, Any], ___: Any) -> None:
        if not given[GUIDANCE].is_meta:  # not the call whose costs are counted
            seen.append(given[GUIDANCE].tolist())

    watch = model.denoiser.register_forward_hook(note, with_kwargs=True)
    how = {"seed": 0, "sampler": "own", "steps": 2, "batch_size": 2, "guidance": guidance}
    model.sample(2, shows=lambda rows: model.told(["a cat"] * len(rows)), **how)
    watch.remove()
    assert seen == [[guidance] * 2] * 2
    assert model.calls(guidance) == 1


def test_a_model_without_guidance_is_told_none_and_refuses_it():
    model = teacher(distilled=False)
    assert GUIDANCE not in model.told(["a cat"])
    assert model.guidance() == 1.0
    with pytest.raises(UserError, match=r"evaluate\.guidance = 2: .* cannot be guided"):
        model.guidance(2.0)


def test_samples_depend_on_the_guidance():
    model = teacher()
    one, other = (
        model.sample(
            1,
            seed=0,
            sampler="own",
            steps=2,
            batch_size=1,
            shows=lambda rows: model.told(["a cat"] * len(rows)),
            guidance=guidance,
        )
        for guidance in (1.0, 30.0)
    )
    assert not np.array_equal(one, other)


def test_a_pipeline_that_edits_images_is_refused(tmp_path: Path) -> None:
    tiny_flux().save_pretrained(tmp_path)
    edit_json(tmp_path / "model_index.json", _class_name="FluxKontextPipeline")
    with pytest.raises(UserError, match="FluxKontextPipeline does more than make images"):
        load_teacher(str(tmp_path))
