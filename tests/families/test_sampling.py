from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from diffnas.errors import UserError
from diffnas.families.noise import (
    BETA_SCHEDULES,
    add_noise,
    alphas_cumprod,
    at_size,
    told_timesteps,
    unsupported_noise,
)
from diffnas.families.sampling import (
    check_sampler,
    fresh_scheduler,
    make_scheduler,
    sample_images,
)
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
        draw(DDPMScheduler(), predict, count, steps=1, batch_size=8, macs=macs)
    finally:
        torch.set_num_threads(before)
    assert seen == {threads}


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(UserError, match="20 timesteps"):
        make_scheduler(DDPMScheduler(num_train_timesteps=20).config, "ddim", 21)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_every_sampler_takes_the_noise_that_was_trained_with(
    sampler: str, beta_schedule: str
) -> None:
    scheduler = DDPMScheduler(beta_schedule=beta_schedule)
    made = fresh_scheduler(scheduler, sampler, 5, torch.device("cpu"))
    torch.testing.assert_close(made.alphas_cumprod, alphas_cumprod(scheduler.config))


def test_a_sampler_that_cannot_take_the_steps_is_refused_in_a_line() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=20)
    with pytest.raises(UserError, match=r"evaluate.sampler = own.*DDPMScheduler refuses") as caught:
        fresh_scheduler(scheduler, "own", 21, torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"]
)
def test_a_sampler_that_cannot_take_the_prediction_is_refused_in_a_line(name: str) -> None:
    scheduler = getattr(diffusers, name)(prediction_type="sample")
    with pytest.raises(UserError, match=rf"evaluate.sampler = own.*{name} refuses") as caught:
        check_sampler(scheduler, "own", 5, torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(UserError, match="dpmsolver"):
        make_scheduler(DDPMScheduler().config, "heun", 5)


FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)


def test_a_flow_is_a_straight_line_from_image_to_noise():
    image, noise, times = (
        torch.randn(3, 1, 2, 2),
        torch.randn(3, 1, 2, 2),
        torch.tensor([0, 499, 999]),
    )
    noisy, target = add_noise(FLOW.config, image, noise, times)
    assert torch.equal(noisy[2], noise[2])
    torch.testing.assert_close(target, noise - image)
    shares = told_timesteps(FLOW.config, times) / 1000
    torch.testing.assert_close(shares[1], torch.tensor(3 * 0.5 / (1 + 2 * 0.5)))
    torch.testing.assert_close(noisy - shares[:, None, None, None] * target, image)


def test_a_flow_is_told_the_timesteps_that_its_scheduler_has():
    every = FlowMatchEulerDiscreteScheduler(shift=3.0).timesteps.flip(0)
    torch.testing.assert_close(told_timesteps(FLOW.config, torch.arange(1000)), every)


@pytest.mark.parametrize("sampler", ["own", "euler", "dpmsolver"])
def test_samplers_of_a_flow_follow_it_to_the_image(sampler):
    def prepare(indices):
        # The flow of images that are all 0.5: noise - image, from where the noisy image is.
        return lambda noisy, time: (noisy - 0.5) / (time / 1000)

    images = sample_images(
        FLOW, prepare, (1, 4, 4), 2, seed=0, sampler=sampler, steps=5, batch_size=2, device=CPU
    )
    assert np.abs(images.astype(int) - 191).max() <= 1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samplers_of_diffusions_do_not_fit_a_flow(sampler):
    with pytest.raises(UserError, match=f"evaluate.sampler = {sampler}: not for a model of flows"):
        check_sampler(FLOW, sampler, 5, CPU)


SHIFTING = {
    kind: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    for kind in ("exponential", "linear")
}


def test_flows_that_depend_on_the_images_size_need_one():
    config = SHIFTING["exponential"].config
    assert "use_dynamic_shifting" in unsupported_noise(at_size(config, None))
    assert unsupported_noise(at_size(config, 1024)) is None


@pytest.mark.parametrize("kind", SHIFTING)
@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096])
def test_noise_at_a_size_is_what_the_pipelines_scheduler_has_there(kind, tokens):
    scheduler = SHIFTING[kind]
    mu = calculate_shift(tokens)
    scheduler.set_timesteps(4, sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    told = told_timesteps(at_size(scheduler.config, tokens), torch.tensor([999, 749, 499, 249]))
    torch.testing.assert_close(told, scheduler.timesteps)


def test_a_fixed_shift_is_the_same_at_every_size():
    assert at_size(FLOW.config, 4096) is FLOW.config
    assert at_size(DDPMScheduler().config, 4096) == DDPMScheduler().config


@pytest.mark.parametrize("sampler", ["own", "euler"])
def test_steps_start_where_the_pipeline_has_them_start(sampler):
    def halves(steps: int) -> list[float]:
        return [0.5**step for step in range(steps)]

    made = fresh_scheduler(FlowMatchEulerDiscreteScheduler(), sampler, 3, CPU, halves)
    assert made.timesteps.tolist() == [1000, 500, 250]


def test_solvers_of_a_second_order_choose_where_steps_start():
    made, plain = (
        fresh_scheduler(FLOW, "dpmsolver", 3, CPU, each) for each in (lambda _: [1.0], None)
    )
    assert torch.equal(made.timesteps, plain.timesteps)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_latents_of_schedulers_that_do_not_clip_are_not_clipped(sampler):
    config = DPMSolverMultistepScheduler().config
    assert make_scheduler(config, sampler, 5).config.clip_sample is False


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
