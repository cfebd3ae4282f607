"""FLUX.2 klein: latents of squares, a shift that follows size and steps, guidance or none."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from diffnas.embeddings import check_dropout
from diffnas.errors import UserError
from diffnas.families import Teacher
from diffnas.families.batches import training_batch
from diffnas.families.flux2 import FAMILY
from diffnas.families.loading import load_skeleton, load_teacher
from tests.families.folders import edit_json, refused
from tests.models import tiny_flux2

CPU = torch.device("cpu")


@cache
def teacher(distilled: bool = False) -> Teacher:
    pipeline = tiny_flux2(distilled=distilled)
    return Teacher("flux2", pipeline, pipeline.transformer.requires_grad_(False), FAMILY)


def call(model: Teacher, count: int = 2) -> tuple[torch.Tensor, dict[str, Any]]:
    noisy = torch.randn(count, *FAMILY.sample_shape(model.denoiser))
    told = FAMILY.example_condition(model.denoiser, count, CPU)
    return noisy, FAMILY.inputs(model.denoiser, noisy, torch.tensor(500), told)


def test_latents_are_packed_as_the_pipeline_does() -> None:
    noisy, inputs = call(teacher())
    assert torch.equal(inputs["hidden_states"], Flux2KleinPipeline._pack_latents(noisy))
    (places, *_) = Flux2KleinPipeline._prepare_latent_ids(noisy)
    assert torch.equal(inputs["img_ids"], places.float())
    (order, *_) = Flux2KleinPipeline._prepare_text_ids(inputs["encoder_hidden_states"])
    assert torch.equal(inputs["txt_ids"], order.float())


def test_a_prediction_is_unpacked() -> None:
    noisy, inputs = call(teacher())
    output = SimpleNamespace(sample=inputs["hidden_states"])
    assert torch.equal(FAMILY.prediction(output, noisy.shape[2:]), noisy)


def test_places_are_shared_by_as_many_images_as_there_are_tokens() -> None:
    model = teacher()
    told = FAMILY.example_condition(model.denoiser, 16, CPU)
    batch = training_batch(model, torch.zeros(16, 16, 4, 4), told, torch.Generator())
    part = batch.rows(slice(0, 8))
    assert part.inputs["img_ids"].shape == (16, 4)
    assert part.inputs["hidden_states"].shape == (8, 16, 16)


@pytest.mark.parametrize("size", [8, 64, 128, 132])
@pytest.mark.parametrize("steps", [4, 28, 50])
def test_the_shift_is_the_pipelines_at_every_size_and_number_of_steps(
    size: int, steps: int
) -> None:
    denoiser = tiny_flux2(size=size).transformer
    expected = compute_empirical_mu((size // 2) ** 2, steps)
    assert FAMILY.mu is not None
    assert FAMILY.mu(denoiser, {}, steps) == pytest.approx(expected, rel=1e-6)


def test_training_has_the_noise_of_as_many_steps_as_the_pipeline_takes() -> None:
    scheduler = teacher().pipeline.scheduler
    mu = compute_empirical_mu(16, 50)
    batch = training_batch(
        teacher(),
        torch.zeros(1, 16, 4, 4),
        FAMILY.example_condition(teacher().denoiser, 1, CPU),
        torch.Generator(),
        torch.tensor([499]),
    )
    expected = scheduler.time_shift(mu, 1.0, torch.tensor([0.5]))
    torch.testing.assert_close(batch.inputs["timestep"], expected)


def test_a_model_of_few_steps_is_not_guided() -> None:
    base, few = teacher(), teacher(distilled=True)
    assert (base.guidance(), base.calls(4.0)) == (4.0, 2)
    assert (few.guidance(), few.calls(1.0)) == (1.0, 1)
    assert few.nothing() is None
    with pytest.raises(UserError, match=r"evaluate\.guidance = 2: .* cannot be guided"):
        few.guidance(2.0)
    with pytest.raises(UserError, match=r"data\.condition_dropout = 0\.1: .* leave it out"):
        check_dropout(few, 0.1)


@pytest.mark.parametrize("distilled", [False, True])
def test_whether_it_is_guided_is_known_without_weights(distilled: bool, tmp_path: Path) -> None:
    tiny_flux2(distilled=distilled).save_pretrained(tmp_path)
    for load in (load_skeleton, load_teacher):
        assert load(str(tmp_path)).guidable is not distilled


@pytest.mark.parametrize("load", [load_teacher, load_skeleton])
def test_pipelines_that_do_more_with_such_a_denoiser_are_refused(tmp_path: Path, load: Any) -> None:
    tiny_flux2().save_pretrained(tmp_path)
    edit_json(tmp_path / "model_index.json", _class_name="Flux2KleinKVPipeline")
    told = refused(tmp_path, load)
    assert "a Flux2KleinKVPipeline does more than make images from texts" in told
    assert "supported are Flux2KleinPipeline" in told


def test_models_that_are_told_a_scale_or_take_an_image_besides_are_refused() -> None:
    denoiser = tiny_flux2(guidance_embeds=True).transformer
    assert "guidance_embeds is not supported" in FAMILY.supports(denoiser)
    denoiser = tiny_flux2(in_channels=32, out_channels=16).transformer
    assert "in_channels 32 and out_channels 16" in FAMILY.supports(denoiser)


@pytest.mark.parametrize("size", [7, 2, None])
def test_a_size_that_cannot_be_packed_is_refused(size: Any) -> None:
    assert "set an even number" in FAMILY.supports(tiny_flux2(size=size).transformer)


def test_a_student_trains_with_gradient_checkpointing() -> None:
    inputs = call(teacher())[1]
    edits = {
        "transformer_blocks.0": {"kind": "skip"},
        "transformer_blocks.1": {"kind": "joint", "heads": 1, "width": 8},
        "single_transformer_blocks.0": {"kind": "parallel", "heads": 1, "width": 8},
        "single_transformer_blocks.1": {"kind": "skip"},
    }
    denoiser: Any = teacher().denoiser
    student = FAMILY.classes[1].from_config(denoiser.config, edits=edits)
    plain = student(**inputs).sample
    student.enable_gradient_checkpointing()
    torch.testing.assert_close(student.train()(**inputs).sample, plain)
