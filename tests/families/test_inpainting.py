"""Models that fill holes in images: which holes, what they are shown, what their samples are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from diffnas.data import Data, to_float
from diffnas.families import Teacher, holes, unet2d_condition
from diffnas.families.batches import batch_of, random_batch
from diffnas.families.loading import load_skeleton
from diffnas.measure.evaluate import draw
from diffnas.measure.protocol import told
from diffnas.rng import generator
from diffnas.settings import EvaluateSettings
from tests import engine
from tests.engine import scramble, tiny_data, tiny_inpainter
from tests.families.folders import edit_json, refused
from tests.models import tiny_inpainting, tiny_stable_diffusion, tiny_xl_inpainting

COUNT = 40
GREY = 0.0


def teacher_of(pipeline: Any) -> Teacher:
    scramble(pipeline.unet)
    return engine.teacher_of(pipeline, unet2d_condition.FAMILY)


def pictures(size: int = 16) -> Data:
    captions = tuple("ab"[row % 2] for row in range(COUNT))
    return replace(tiny_data(COUNT, channels=3, size=size), captions=captions)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def many(count: int) -> torch.Tensor:
    return holes.masks((64, 48), [generator(0, "test", index) for index in range(count)])


def test_a_mask_is_of_zeros_and_ones_and_has_a_hole() -> None:
    drawn = many(50)
    assert drawn.shape == (50, 1, 64, 48)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert (drawn.mean((1, 2, 3)) > 1 / 64).all()


def test_a_quarter_of_the_holes_is_the_whole_image() -> None:
    whole = (many(1000) == 1).all(3).all(2)
    assert float(whole.float().mean()) == pytest.approx(0.25, abs=0.04)


def test_holes_may_be_anywhere() -> None:
    drawn = many(1000)
    partly = drawn[(drawn == 0).any(3).any(2)[:, 0]]
    share = partly.mean((0, 1))
    assert 0.02 < float(share.min()) < float(share.max()) < 0.6


def test_a_hole_follows_from_its_own_generator() -> None:
    first, second = (holes.masks((16, 16), [generator(0, "t", i)]) for i in (3, 4))
    assert torch.equal(holes.masks((16, 16), [generator(0, "t", i) for i in (3, 4)])[:1], first)
    assert not torch.equal(first, second)


def test_one_generator_gives_each_image_another_hole() -> None:
    drawn = holes.masks((16, 16), [seeded()] * 20)
    assert len({each.numpy().tobytes() for each in drawn}) > 10


@pytest.mark.parametrize("augment", ["none", "flip", "digits"])
def test_it_is_trained_to_fill_holes_in_the_images_it_denoises(augment: str) -> None:
    data = replace(pictures(8), augment=augment)
    if augment != "digits":  # kept beforehand
        images = to_float(data.images).numpy().astype(np.float16)
        versions = [images, images[..., ::-1]][: 1 + (augment == "flip")]
        data = replace(data, latents=np.stack(versions))
    batch = random_batch(tiny_inpainter(), data, 16, seeded())
    _, mask, masked = batch.inputs["sample"].split([3, 1, 3], 1)
    assert 0 < float(mask.mean()) < 1
    expected = torch.where(mask == 1, torch.tensor(GREY), batch.target)
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-3)


def test_a_batch_of_images_as_they_are_shows_them_with_holes() -> None:
    data, rows = pictures(8), np.array([5, 2, 9])
    batch = batch_of(tiny_inpainter(), data, rows, seeded(), torch.tensor([1, 2, 3]))
    mask = holes.masks((8, 8), [seeded()] * 3)
    assert torch.equal(batch.inputs["sample"][:, 3:4], mask)
    assert torch.equal(batch.inputs["sample"][:, 4:], to_float(data.images[rows]) * (1 - mask))


def test_holes_follow_from_the_batchs_generator() -> None:
    teacher, data = tiny_inpainter(), pictures(8)
    one, same = (random_batch(teacher, data, 8, seeded()).inputs["sample"] for _ in range(2))
    assert torch.equal(one, same)


def test_captions_are_left_out_and_holes_are_not() -> None:
    teacher = tiny_inpainter()
    data = replace(pictures(8), condition_dropout=1.0)
    given = random_batch(teacher, data, 8, seeded()).inputs
    nothing = teacher.nothing()
    assert nothing is not None
    assert set(nothing) == {unet2d_condition.TEXTS}
    expected = nothing[unet2d_condition.TEXTS].expand(8, -1, -1)
    torch.testing.assert_close(given[unet2d_condition.TEXTS], expected)
    assert (given["sample"][:, 3:4] == 0).any()
    assert (given["sample"][:, 3:4] == 1).any()


def certain(pipeline: Any) -> Any:
    """Its autoencoder gives latents without chance, where its own call would draw them."""
    channels = pipeline.vae.config.latent_channels
    layer = pipeline.vae.quant_conv
    layer.weight.data[channels:] = 0.0
    layer.bias.data[channels:] = -30.0
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("make", [tiny_inpainting, tiny_xl_inpainting])
def test_samples_are_those_of_the_pipelines_own_call(
    make: Callable[[], Any], guidance: float
) -> None:
    teacher, data = teacher_of(certain(make())), pictures()
    settings = EvaluateSettings(sampler="own", sampler_steps=3, guidance=guidance)
    made = draw(teacher, data, settings, 3, seed=5)
    picks = data.held_out[
        torch.randint(8, (3,), generator=generator(5, "sample classes", 0)).numpy()
    ]
    masks = holes.masks((16, 16), [generator(5, "sample holes", index) for index in range(3)])
    noise = [torch.randn(4, 8, 8, generator=generator(5, "sample", index)) for index in range(3)]
    assert data.captions is not None
    teacher.pipeline.set_progress_bar_config(disable=True)
    own = teacher.pipeline(
        [data.captions[row] for row in picks],
        image=torch.from_numpy(data.images[picks]) / 255,
        mask_image=masks,
        latents=torch.stack(noise),
        strength=1.0,
        num_inference_steps=3,
        guidance_scale=guidance,
        output_type="np",
    ).images
    assert np.abs(made.transpose(0, 2, 3, 1).astype(float) - 255 * own).max() <= 1.0


@torch.no_grad()
def test_few_samples_are_the_first_of_many() -> None:
    teacher, data = teacher_of(tiny_inpainting()), pictures()
    settings = EvaluateSettings(sampler_steps=2, batch_size=4)
    few, most = (draw(teacher, data, settings, count, seed=3).astype(int) for count in (3, 7))
    assert np.abs(few - most[:3]).max() <= 1


def test_the_protocol_says_what_is_filled() -> None:
    settings = EvaluateSettings()
    assert "held-out" in told(teacher_of(tiny_inpainting()), settings)["holes"]
    assert "holes" not in told(teacher_of(tiny_stable_diffusion()), settings)


def test_a_pipeline_that_fills_holes_with_a_model_of_texts_is_one_of_texts(tmp_path: Any) -> None:
    tiny_inpainting(in_channels=4).save_pretrained(tmp_path)
    assert not load_skeleton(str(tmp_path)).inpaints


@pytest.mark.parametrize("channels", [5, 8])
def test_models_that_are_shown_something_else_are_refused(channels: int, tmp_path: Any) -> None:
    tiny_inpainting().save_pretrained(tmp_path)
    edit_json(tmp_path / "unet" / "config.json", in_channels=channels)
    told = refused(tmp_path, load_skeleton)
    assert f"in_channels {channels} and out_channels 4 differ" in told
