from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
)

from diffnas.families.sampling import check_sampler, sample_images
from diffnas.parallel import SMALL
from tests.models import tiny_pipeline

# diffusers' schedulers turn tensors into arrays in ways that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

CPU = torch.device("cpu")
SAMPLERS = ("ddim", "dpmsolver", "euler", "ddpm", "own")
MEAN, SPREAD = 0.1, 0.3


def ideal(config: Any) -> Any:
    """The best denoiser for images whose pixels are independent and normal."""
    alphas = DDPMScheduler.from_config(config).alphas_cumprod

    def predict(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        a = alphas[int(timestep)].clamp(1e-8, 1 - 1e-8)
        image = MEAN + a.sqrt() * SPREAD**2 / (a * SPREAD**2 + 1 - a) * (noisy - a.sqrt() * MEAN)
        noise = (noisy - a.sqrt() * image) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * image
        kinds = {"epsilon": noise, "v_prediction": velocity, "sample": image}
        return kinds[config.prediction_type]

    return predict


def draw(scheduler: Any, predict: Any, count: int = 32, **settings: Any) -> np.ndarray:
    chosen = {"seed": 0, "sampler": "ddim", "steps": 20, "batch_size": 8, **settings}
    device = torch.device("cpu")
    return sample_images(scheduler, lambda _: predict, (1, 8, 8), count, device=device, **chosen)


@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver", "euler", "ddpm"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"clip_sample": False},
    ],
)
def test_an_ideal_denoiser_gives_the_data(
    sampler: str, prediction_type: str, settings: dict[str, Any]
) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction_type, **settings)
    steps = 50 if sampler == "dpmsolver" else 250
    images = draw(scheduler, ideal(scheduler.config), sampler=sampler, steps=steps) / 127.5 - 1
    assert images.mean() == pytest.approx(MEAN, abs=0.02)
    assert images.std() == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver", "euler", "ddpm"])
def test_it_does_so_where_diffusers_would_take_a_step_too_many(sampler: str) -> None:
    scheduler = DDPMScheduler()
    images = draw(scheduler, ideal(scheduler.config), sampler=sampler, steps=61) / 127.5 - 1
    assert images.mean() == pytest.approx(MEAN, abs=0.02)
    assert images.std() == pytest.approx(SPREAD, rel=0.15)  # ddpm's is less with so few steps


@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver", "euler", "ddpm"])
def test_zero_terminal_snr_is_sampled(sampler: str) -> None:
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    images = draw(scheduler, ideal(scheduler.config), sampler=sampler, steps=250) / 127.5 - 1
    assert images.mean() == pytest.approx(MEAN, abs=0.02)
    assert images.std() == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_any_scheduler_is_run_as_it_is(name: str) -> None:
    pipeline = tiny_pipeline(scheduler=getattr(diffusers, name)())
    for sampler in SAMPLERS:
        check_sampler(pipeline.scheduler, sampler, 4, torch.device("cpu"))
        images = draw(
            pipeline.scheduler,
            lambda noisy, timestep: pipeline.unet(noisy, timestep).sample,
            count=2,
            sampler=sampler,
            steps=4,
        )
        assert images.std() > 0


def test_own_is_what_the_pipeline_draws() -> None:
    pipeline = DDIMPipeline(unet=tiny_pipeline().unet, scheduler=DDIMScheduler())
    start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))

    def predict(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return pipeline.unet(noisy, timestep).sample

    ours = []

    def first_noise(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        ours.append(noisy.clone())
        return predict(noisy, timestep)

    images = draw(pipeline.scheduler, first_noise, count=1, sampler="own", steps=5)
    assert start.shape == ours[0].shape
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(5)
    current = ours[0]
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            current = scheduler.step(
                pipeline.unet(current, timestep).sample, timestep, current
            ).prev_sample
    expected = ((current / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("sampler", ["dpmsolver", "ddpm"])
def test_images_do_not_depend_on_the_batch_size(sampler: str) -> None:
    scheduler = DDPMScheduler()
    predict = ideal(scheduler.config)
    one, many = (draw(scheduler, predict, 6, sampler=sampler, batch_size=size) for size in (1, 4))
    np.testing.assert_array_equal(one, many)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    scheduler = DDPMScheduler()
    few, more = (draw(scheduler, ideal(scheduler.config), count) for count in (3, 5))
    np.testing.assert_array_equal(few, more[:3])


def test_seeds_give_other_images() -> None:
    scheduler = DDPMScheduler()
    one, two = (draw(scheduler, ideal(scheduler.config), 3, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_sampling_leaves_the_scheduler_as_it_is() -> None:
    scheduler = DDIMScheduler()
    before = scheduler.timesteps.clone()
    draw(scheduler, ideal(scheduler.config), 2, sampler="own", steps=3)
    assert torch.equal(scheduler.timesteps, before)


def test_progress_ends_at_the_count() -> None:
    scheduler, seen = DDPMScheduler(), []
    draw(scheduler, ideal(scheduler.config), 5, batch_size=2, steps=1, progress=seen.append)
    assert seen == [2, 4, 5]


@pytest.mark.parametrize(
    ("count", "macs", "threads"),
    [
        (16, 0.0, 1),  # two small batches, side by side
        (8, 0.0, 2),  # one batch, which has nothing to run beside
        (16, SMALL / 8, 1),
        (16, SMALL, 2),  # two large batches, one after the other
        (12, SMALL / 8 * 1.01, 2),
    ],
)
def test_only_small_batches_that_are_several_run_on_one_thread_each(
    count: int, macs: float, threads: int
) -> None:
    seen: set[int] = set()

    def predict(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return noisy

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        draw(DDPMScheduler(), predict, count, steps=1, batch_size=8, macs=lambda: macs)
    finally:
        torch.set_num_threads(before)
    assert seen == {threads}


@pytest.mark.parametrize("sampler", ["ddpm", "dpmsolver", "own"])
def test_a_learned_variance_is_no_part_of_sampling(sampler):
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    images = sample_images(
        scheduler,
        lambda _: lambda noisy, _: torch.zeros_like(noisy),
        (4, 2, 2),
        1,
        seed=0,
        sampler=sampler,
        steps=3,
        batch_size=1,
        device=CPU,
    )
    assert images.shape == (1, 4, 2, 2)
