"""What every family promises: its conditions, and samples that follow them."""

from typing import Any

import numpy as np
import pytest
import torch

from diffnas.blocks import tensors
from diffnas.families import Teacher, flux2, pixart
from diffnas.families.conditions import GUIDANCE
from diffnas.rng import generator
from tests.engine import tiny_data
from tests.families.kinds import CPU, KINDS, OF_TEXTS, teacher, told
from tests.models import tiny_pixart_alpha

NOT_GUIDED = ["texts, few steps", "texts, consistency"]
"""Though their family can be."""

TOLD = [
    kind
    for kind, (_, family) in KINDS.items()
    if family.nothing is not None and kind not in NOT_GUIDED
]

OWN_CALL: dict[str, Any] = {
    "pixart": {"use_resolution_binning": False},
    "flux": {"height": 16, "width": 16},
    "flux2": {"height": 16, "width": 16},
}
"""What pipelines must be told to make images of the size that their denoiser is for."""


@pytest.mark.parametrize("kind", TOLD)
def test_nothing_has_the_form_of_a_condition(kind):
    model = teacher(kind)
    assert {name: each.shape for name, each in model.nothing().items()} == told(model, 1)


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_captions_have_the_form_of_a_condition(kind):
    model = teacher(kind)
    found = model.family.captions(model.pipeline, ["a cat", "two dogs"])
    assert {name: each.shape for name, each in found.items()} == told(model, 2)


def test_captions_of_pixart_alpha_have_the_form_of_its_own_condition():
    pipeline = tiny_pixart_alpha()
    model = Teacher("alpha", pipeline, pipeline.transformer, pixart.FAMILY)
    found = model.told(["a cat", "two dogs"])
    assert {name: each.shape for name, each in found.items()} == told(model, 2)


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_captions_are_encoded_without_the_prompt_that_stands_for_none(kind):
    model, batches = teacher(kind), []
    encoder = getattr(model.pipeline, model.family.encoders(model.denoiser)[0])
    watch = encoder.register_forward_pre_hook(lambda *call: batches.append(call), with_kwargs=True)
    try:
        model.family.captions(model.pipeline, ["a cat", "two dogs"])
    finally:
        watch.remove()
    assert [len(next(tensors(given))) for _, *given in batches] == [2]


# Those of images with holes are in test_inpainting.py.
@pytest.mark.parametrize("kind", [kind for kind in OF_TEXTS if "holes" not in kind])
def test_guided_samples_are_those_of_the_pipelines_own_call(kind):
    model = teacher(kind)
    shape, steps = model.family.sample_shape(model.denoiser), 3
    samples = model.sample(
        2,
        seed=5,
        sampler="own",
        steps=steps,
        batch_size=2,
        shows=lambda rows: model.family.captions(model.pipeline, ["a cat"] * len(rows)),
        nothing=model.nothing(),
        guidance=4.0,
    )
    randoms = [generator(5, "sample", index) for index in range(2)]
    noise = [torch.randn(shape, generator=each) for each in randoms]
    model.pipeline.set_progress_bar_config(disable=True)
    told = model.family.example_condition(model.denoiser, 2, CPU)
    start, *_ = model.family.inputs(
        model.denoiser, torch.stack(noise), torch.tensor(0), told
    ).values()
    if model.family is flux2.FAMILY:  # whose pipeline packs by itself
        start = torch.stack(noise)
    given = {"latents": start, **OWN_CALL.get(model.family.name, {})}  # as the denoiser takes it
    if kind == "texts, of images":  # of which nothing is left at full strength
        model.pipeline.scheduler.set_timesteps(steps)
        started = start * model.pipeline.scheduler.init_noise_sigma
        given = {"latents": started, "image": torch.zeros(2, 3, 16, 16), "strength": 1.0}
    own = model.pipeline(
        prompt=["a cat"] * 2,
        num_inference_steps=steps,
        guidance_scale=4.0,
        output_type="np",
        generator=randoms,
        **given,
    ).images
    made = samples.transpose(0, 2, 3, 1).astype(float)
    assert np.abs(made - 255 * own).max() <= 1.0


def test_a_consistency_model_is_told_its_pipelines_guidance_in_one_call():
    model = teacher("texts, consistency")
    assert (
        model.told(["a cat", "two dogs"])[GUIDANCE].tolist() == [model.guidance()] * 2 == [8.5] * 2
    )
    assert (model.calls(8.5), model.guidable, model.distilled) == (1, False, True)


def test_captions_are_cleaned_as_in_the_pipelines_own_call(monkeypatch):
    model, cleaned = teacher("texts, transformer"), set()
    for package in ("bs4", "ftfy"):
        monkeypatch.setattr(pixart, f"is_{package}_available", lambda: True)
    own = model.pipeline._text_preprocessing

    def watched(texts: Any, clean_caption: bool) -> Any:
        cleaned.add(clean_caption)
        return own(texts)

    monkeypatch.setattr(model.pipeline, "_text_preprocessing", watched)
    model.pipeline("a cat", num_inference_steps=1, output_type="latent", **OWN_CALL["pixart"])
    model.family.captions(model.pipeline, ["a cat"])
    assert cleaned == {True}


def test_conditions_of_classes_are_those_of_the_images():
    model, data = teacher("classes, transformer"), tiny_data()
    told = model.condition(data, np.array([3, 6]))
    assert told["class_labels"].tolist() == [3, 2]


def test_the_class_that_stands_for_none_is_the_one_after_the_last():
    assert teacher("classes, transformer").nothing()["class_labels"].tolist() == [10]
