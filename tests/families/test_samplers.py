import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffnas.errors import UserError
from diffnas.families.noise import BETA_SCHEDULES, alphas_cumprod
from diffnas.families.samplers import fresh_scheduler, make_scheduler
from diffnas.families.sampling import check_sampler

# diffusers' schedulers turn tensors into arrays in ways that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

CPU = torch.device("cpu")
SAMPLERS = ("ddim", "dpmsolver", "euler", "ddpm", "own")
FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(UserError, match="20 timesteps"):
        make_scheduler(DDPMScheduler(num_train_timesteps=20).config, "ddim", 21)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_every_sampler_takes_the_noise_that_was_trained_with(
    sampler: str, beta_schedule: str
) -> None:
    scheduler = DDPMScheduler(beta_schedule=beta_schedule)
    made = fresh_scheduler(scheduler, sampler, 5, CPU)
    torch.testing.assert_close(made.alphas_cumprod, alphas_cumprod(scheduler.config))


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_as_many_steps_as_are_asked_for_end_within_the_schedule(sampler, schedule) -> None:
    for timesteps, steps in ((1000, 20), (1000, 61), (1000, 223), (100, 29), (100, 97), (3, 3)):
        scheduler = DDIMScheduler(
            timesteps, beta_schedule=schedule, timestep_spacing="trailing", clip_sample=False
        )
        made = fresh_scheduler(scheduler, sampler, steps, CPU)
        assert len(made.timesteps) == steps
        assert made.timesteps.min() >= 0
        assert len(getattr(made, "sigmas", range(steps + 1))) == steps + 1


def test_a_strongly_shifted_flow_takes_many_steps() -> None:
    check_sampler(FlowMatchEulerDiscreteScheduler(shift=9.0), "dpmsolver", 126, CPU)


def test_a_sampler_that_cannot_take_the_steps_is_refused_in_a_line() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=20)
    with pytest.raises(UserError, match=r"evaluate.sampler = own.*DDPMScheduler refuses") as caught:
        fresh_scheduler(scheduler, "own", 21, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"]
)
def test_a_sampler_that_cannot_take_the_prediction_is_refused_in_a_line(name: str) -> None:
    scheduler = getattr(diffusers, name)(prediction_type="sample")
    with pytest.raises(UserError, match=rf"evaluate.sampler = own.*{name} refuses") as caught:
        check_sampler(scheduler, "own", 5, CPU)
    assert "\n" not in str(caught.value)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(UserError, match="dpmsolver"):
        make_scheduler(DDPMScheduler().config, "heun", 5)


@pytest.mark.parametrize("sampler", ["own", "euler"])
def test_steps_start_where_the_pipeline_has_them_start(sampler):
    def halves(steps: int) -> list[float]:
        return [0.5**step for step in range(steps)]

    made = fresh_scheduler(FlowMatchEulerDiscreteScheduler(), sampler, 3, CPU, halves)
    assert made.timesteps.tolist() == [1000, 500, 250]


def test_a_pipelines_solver_of_a_flow_chooses_where_steps_start():
    solver = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    made, plain = (fresh_scheduler(solver, "own", 3, CPU, each) for each in (lambda _: [1.0], None))
    assert torch.equal(made.timesteps, plain.timesteps)


def test_solvers_of_a_second_order_choose_where_steps_start():
    made, plain = (
        fresh_scheduler(FLOW, "dpmsolver", 3, CPU, each) for each in (lambda _: [1.0], None)
    )
    assert torch.equal(made.timesteps, plain.timesteps)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_latents_of_schedulers_that_do_not_clip_are_not_clipped(sampler):
    config = DPMSolverMultistepScheduler().config
    assert make_scheduler(config, sampler, 5).config.clip_sample is False
