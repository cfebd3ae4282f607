"""Straight flows from image to noise: what is trained, and how it is sampled."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from diffnas.errors import UserError
from diffnas.families import flux
from diffnas.families.noise import (
    add_noise,
    at_size,
    follows_size,
    told_timesteps,
    unsupported_noise,
)
from diffnas.families.samplers import fresh_scheduler
from diffnas.families.sampling import check_sampler, sample_images
from tests.models import tiny_flux

CPU = torch.device("cpu")
FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)
SET_TO_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SOLVERS = [DPMSolverMultistepScheduler, UniPCMultistepScheduler]
FLOWS = [FLOW, *(solver(**SET_TO_FLOW, flow_shift=3.0) for solver in SOLVERS)]


def name(scheduler):
    return type(scheduler).__name__


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


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_that_is_set_to_a_flow_has_the_noise_of_its_shift(solver, tmp_path):
    solver.from_config(FLOW.config, **SET_TO_FLOW, flow_shift=5.0).save_pretrained(tmp_path)
    config = solver.from_pretrained(tmp_path).config
    assert unsupported_noise(config) is None
    every = FlowMatchEulerDiscreteScheduler(shift=5.0).timesteps.flip(0)
    torch.testing.assert_close(told_timesteps(config, torch.arange(1000)), every)


@pytest.mark.parametrize("scheduler", FLOWS, ids=name)
@pytest.mark.parametrize("sampler", ["own", "euler", "dpmsolver"])
def test_samplers_of_a_flow_follow_it_to_the_image(sampler, scheduler):
    def prepare(indices):
        # The flow of images that are all 0.5: noise - image, from where the noisy image is.
        return lambda noisy, time: (noisy - 0.5) / (time / 1000)

    images = sample_images(
        scheduler, prepare, (1, 4, 4), 2, seed=0, sampler=sampler, steps=5, batch_size=2, device=CPU
    )
    assert np.abs(images.astype(int) - 191).max() <= 1


@pytest.mark.parametrize("sampler", ["euler", "dpmsolver"])
def test_samplers_have_the_shift_of_a_solver_that_is_set_to_a_flow(sampler):
    first, *others = (fresh_scheduler(each, sampler, 4, CPU).sigmas for each in FLOWS)
    for each in others:
        torch.testing.assert_close(each, first)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (EDMEulerScheduler(), "no beta schedule, nor is it a flow that is supported; if"),
        (FlowMatchHeunDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler, save its pipeline"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "True and prediction_type 'epsilon';"),
        (
            UniPCMultistepScheduler(prediction_type="flow_prediction"),
            "use_flow_sigmas False and prediction_type 'flow_prediction'; save",
        ),
        (
            UniPCMultistepScheduler(**SET_TO_FLOW, use_dynamic_shifting=True),
            "use_dynamic_shifting, which is supported of FLUX with FlowMatchEuler",
        ),
        (
            DPMSolverMultistepScheduler(**SET_TO_FLOW, use_karras_sigmas=True),
            "use_karras_sigmas, which is not supported of a flow; save",
        ),
    ],
)
def test_other_flows_are_refused_with_a_way_out(scheduler, words):
    assert words in unsupported_noise(flux.FAMILY.scheduler(None, scheduler).config)


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
    assert follows_size(config)
    assert "use_dynamic_shifting" in unsupported_noise(config)
    assert unsupported_noise(at_size(config, 1.0)) is None


@pytest.mark.parametrize("kind", SHIFTING)
@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096])
def test_noise_at_a_size_is_what_the_pipelines_scheduler_has_there(kind, tokens):
    scheduler = SHIFTING[kind]
    mu = calculate_shift(tokens)
    scheduler.set_timesteps(4, sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    told = told_timesteps(at_size(scheduler.config, mu), torch.tensor([999, 749, 499, 249]))
    torch.testing.assert_close(told, scheduler.timesteps)


@pytest.mark.parametrize("scheduler", [FLOW, DDPMScheduler()], ids=["flow", "diffusion"])
def test_a_fixed_shift_is_the_same_at_every_size(scheduler):
    assert flux.FAMILY.scheduler(tiny_flux().transformer, scheduler) is scheduler
