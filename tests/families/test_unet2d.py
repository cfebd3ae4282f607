from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffnas.data import Data
from diffnas.errors import RunError, UserError
from diffnas.families.batches import training_batch
from diffnas.families.conditions import CLASSES, Condition
from diffnas.families.unet2d import FAMILY
from diffnas.measure.cost import call_cost
from tests.engine import teacher_of, tiny_data, tiny_teacher
from tests.models import tiny_pipeline, tiny_unet

CPU = torch.device("cpu")

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "colour": {"in_channels": 3, "out_channels": 3},
    "one level": {
        "block_out_channels": (16,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    },
    "three levels, two layers": {
        "block_out_channels": (8, 16, 24),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "attention everywhere": {
        "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    },
    "attention nowhere": {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    },
    "one head per layer": {"attention_head_dim": None},
    "no middle block": {"mid_block_type": None},
    "two norm groups": {"norm_num_groups": 2},
    "asymmetric padding": {"downsample_padding": 0},
    "resnet resampling blocks": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    },
    "resnet resampling in attention blocks": {
        "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
    },
    "scale-shift embedding": {"resnet_time_scale_shift": "scale_shift"},
    "learned time embedding": {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "centred input": {"center_input_sample": True},
    "dropout": {"dropout": 0.5},
    "classes": {"num_class_embeds": 3},
    "wide images": {"sample_size": (8, 16)},
}


def with_labels(*labels: int) -> Data:
    return replace(tiny_data(len(labels)), labels=np.array(labels))


def a_sample(pipeline: Any, count: int = 3, label: int = 0, **settings: Any) -> np.ndarray:
    chosen = {"seed": 0, "sampler": "ddim", "steps": 2, "batch_size": 2, **settings}
    conditional = FAMILY.class_count(pipeline.unet) is not None

    def shows(rows: np.ndarray) -> Condition:
        return {CLASSES: torch.full((len(rows),), label)} if conditional else {}

    return teacher_of(pipeline).sample(count, shows=shows, **chosen)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_takes_a_training_batch(variant: dict[str, Any]) -> None:
    teacher = teacher_of(tiny_pipeline(**variant))
    assert FAMILY.supports(teacher.denoiser) is None
    images = torch.zeros(4, *FAMILY.sample_shape(teacher.denoiser))
    condition = teacher.condition(with_labels(0, 1, 2, 0), np.arange(4))
    batch = training_batch(teacher, images, condition, torch.Generator())
    with torch.no_grad():
        predicted = FAMILY.prediction(teacher.denoiser(**batch.inputs), batch.size)
    assert predicted.shape == batch.target.shape == images.shape


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_sampled(variant: dict[str, Any]) -> None:
    pipeline = tiny_pipeline(**variant)
    images = a_sample(pipeline)
    assert images.dtype == np.uint8
    assert images.shape == (3, *FAMILY.sample_shape(pipeline.unet))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_names_its_blocks_in_the_order_they_run(variant: dict[str, Any]) -> None:
    denoiser = tiny_unet(**variant)
    ran: list[str] = []
    names = FAMILY.block_names(denoiser)
    for name in names:
        denoiser.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        denoiser(**FAMILY.example_inputs(denoiser, 2, CPU))
    assert ran == names


def test_blocks_are_one_per_level_down_middle_and_up() -> None:
    assert FAMILY.block_names(tiny_unet()) == [
        *("down_blocks.0", "down_blocks.1"),
        "mid_block",
        *("up_blocks.0", "up_blocks.1"),
    ]


def test_example_inputs_can_be_made_on_the_meta_device() -> None:
    inputs = FAMILY.example_inputs(tiny_unet(num_class_embeds=3), 1, torch.device("meta"))
    assert all(value.is_meta for value in inputs.values())


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"out_channels": 2}, "learn their variance"),
        ({"sample_size": None}, "sample_size"),
        ({"time_embedding_type": "fourier"}, "score SDE"),
        ({"class_embed_type": "identity"}, "class_embed_type"),
        (
            {
                "down_block_types": ("SkipDownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "SkipUpBlock2D"),
                "block_out_channels": (32, 64),
            },
            "SkipDownBlock2D",
        ),
    ],
)
def test_what_cannot_be_searched_is_named(variant: dict[str, Any], words: str) -> None:
    why = FAMILY.supports(tiny_unet(**variant))
    assert why is not None
    assert words in why


def test_training_batches_follow_from_the_generator() -> None:
    images = torch.zeros(4, 1, 8, 8)
    one, same, other = (
        training_batch(tiny_teacher(), images, {}, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.target, same.target)
    assert torch.equal(one.inputs["timestep"], same.inputs["timestep"])
    assert not torch.equal(one.target, other.target)


def test_timesteps_are_whole_and_cover_the_schedule() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=10)
    images = torch.zeros(500, 1, 8, 8)
    batch = training_batch(tiny_teacher(scheduler=scheduler), images, {}, torch.Generator())
    timesteps = batch.inputs["timestep"]
    assert timesteps.dtype == torch.long
    assert set(timesteps.tolist()) == set(range(10))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.012},
        {"trained_betas": [0.1, 0.2, 0.3]},
    ],
)
def test_noise_and_target_are_the_schedulers_own(
    prediction_type: str, settings: dict[str, Any]
) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type, **settings)
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    timesteps = torch.tensor([0, 1, 2])
    teacher = tiny_teacher(scheduler=scheduler)
    batch = training_batch(teacher, images, {}, torch.Generator().manual_seed(3), timesteps)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    target = {
        "epsilon": noise,
        "v_prediction": scheduler.get_velocity(images, noise, timesteps),
        "sample": images,
    }[prediction_type]
    noisy = scheduler.add_noise(images, noise, timesteps)
    torch.testing.assert_close(batch.inputs["sample"], noisy)
    torch.testing.assert_close(batch.target, target)


def test_labels_reach_a_conditional_model_and_no_other() -> None:
    images, data, rows = torch.zeros(2, 1, 8, 8), with_labels(0, 2, 1), np.array([1, 2])
    asked, plain = (
        training_batch(teacher, images, teacher.condition(data, rows), torch.Generator())
        for teacher in (tiny_teacher(num_class_embeds=3), tiny_teacher())
    )
    assert asked.inputs["class_labels"].tolist() == [2, 1]
    assert "class_labels" not in plain.inputs


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "no classes"),
        ((0, 3), "class 3 is out of range"),
        ((2, -1, 0), "class -1 is out of range"),
    ],
)
def test_unfit_labels_are_refused(labels: tuple[int, ...] | None, words: str) -> None:
    teacher = tiny_teacher(num_class_embeds=3)
    data = replace(tiny_data(), labels=None) if labels is None else with_labels(*labels)
    with pytest.raises(UserError, match=words):
        teacher.condition(data, np.arange(2))


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "EDMEulerScheduler"])
def test_schedulers_without_betas_are_refused(name: str) -> None:
    teacher = tiny_teacher(scheduler=getattr(diffusers, name)())
    with pytest.raises(UserError, match="beta schedule"):
        training_batch(teacher, torch.zeros(2, 1, 8, 8), {}, torch.Generator())


def test_a_given_class_decides_the_image() -> None:
    pipeline = tiny_pipeline(num_class_embeds=3)
    zeros, ones = (a_sample(pipeline, label=k, steps=4) for k in (0, 1))
    assert not np.array_equal(zeros, ones)


@pytest.mark.parametrize(("classes", "count"), [(3, 3), (None, None)])
def test_the_family_knows_how_many_classes_a_denoiser_takes(
    classes: int | None, count: int | None
) -> None:
    assert FAMILY.class_count(tiny_unet(num_class_embeds=classes)) == count


def test_sampling_is_told_the_macs_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "diffnas.families.teacher.sample_images", lambda *_, **settings: told.update(settings)
    )
    pipeline = tiny_pipeline(num_class_embeds=3)
    a_sample(pipeline)
    inputs = FAMILY.example_inputs(pipeline.unet, 1, CPU)
    assert told["macs"]() == call_cost(pipeline.unet, kwargs=inputs).macs > 0


def test_a_diverged_denoiser_is_told() -> None:
    pipeline = tiny_pipeline()
    torch.nn.init.constant_(pipeline.unet.conv_out.weight, float("nan"))
    with pytest.raises(RunError, match="not finite"):
        a_sample(pipeline)


def test_the_family_names_its_component() -> None:
    assert FAMILY.component in tiny_pipeline().components
