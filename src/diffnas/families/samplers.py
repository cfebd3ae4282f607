"""The schedulers that samplers step through, set up for a teacher's noise."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from diffnas.errors import UserError
from diffnas.families.noise import (
    FLOW,
    flow_shift,
    is_flow,
    of_diffusions,
    spelt_out,
    train_timesteps,
)
from diffnas.refusing import first_sentence

Levels = Callable[[int], list[float]]
"""Number of steps -> the share of noise that each starts at, from 1 down, before any shift."""

# Trailing steps start from the last training timestep, where the start noise belongs (Lin et al.
# 2023, arXiv 2305.08891); with few steps, leading ones begin too late and leave noise in.
SPACING = {"timestep_spacing": "trailing"}

UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
          ValueError)  # fmt: skip
"""What diffusers' schedulers raise, each in its own way, for settings that they do not take."""


def make_scheduler(config: Mapping[str, Any], sampler: str, steps: int) -> Any:
    """A fresh scheduler of that sampler for a pipeline whose scheduler has this config.

    Raises:
        UserError: the sampler is unknown, or has fewer training timesteps than ``steps``.
    """
    if steps > train_timesteps(config):
        raise UserError(
            f"evaluate.sampler_steps = {steps}: the model has {train_timesteps(config)} timesteps; "
            "use no more than that"
        )
    if is_flow(config):
        return _flow_scheduler(config, sampler)
    # Only those that clip say so; their own default would clip latents too.
    clip = {} if "clip_sample" in config else {"clip_sample": False}
    if sampler == "ddpm":
        return DDPMScheduler.from_config(config, **SPACING, **clip, **_mean_alone(config))
    betas = spelt_out(config)
    if sampler == "ddim":
        return DDIMScheduler.from_config(config, **SPACING, **betas, **clip)
    if sampler == "euler":
        return EulerDiscreteScheduler.from_config(config, **SPACING, **betas)
    if sampler == "dpmsolver":
        return DPMSolverMultistepScheduler.from_config(config, **_dpmsolver(config), **betas)
    raise UserError(f"sampler {sampler!r} is unknown; choose ddim, dpmsolver, euler, ddpm or own")


def _mean_alone(config: Mapping[str, Any]) -> dict[str, Any]:
    """For schedulers of a learned variance: samplers are given the mean without it."""
    learned = config.get("variance_type") in ("learned", "learned_range")
    return {"variance_type": "fixed_small"} if learned else {}


def _flow_scheduler(config: Mapping[str, Any], sampler: str) -> Any:
    """Of a straight flow; the solver's second order is that of DPM-Solver++."""
    steps = {"num_train_timesteps": train_timesteps(config)}
    shift = flow_shift(config)
    if sampler == "euler":
        settings = steps if of_diffusions(config) else config
        return FlowMatchEulerDiscreteScheduler.from_config(settings, shift=shift)
    if sampler == "dpmsolver":
        return DPMSolverMultistepScheduler(
            **steps, prediction_type=FLOW, use_flow_sigmas=True, flow_shift=shift
        )
    raise UserError(
        f"evaluate.sampler = {sampler}: not for a model of flows; choose dpmsolver, euler or own"
    )


def fresh_scheduler(
    scheduler: Any,
    sampler: str,
    steps: int,
    device: torch.device,
    levels: Levels | None = None,
) -> Any:
    """A scheduler set to those steps, of that sampler, for a pipeline with this scheduler.

    ``levels``: what noise its pipeline starts the steps at, where it does not leave that to the
    scheduler; solvers of other orders choose their own.

    Raises:
        UserError: the sampler is unknown, or cannot take so many steps.
    """
    kind = type(scheduler)
    try:
        if sampler == "own":
            fresh = kind.from_config(scheduler.config, **_mean_alone(scheduler.config))
        else:
            fresh = make_scheduler(scheduler.config, sampler, steps)
            kind = type(fresh)
        takes_levels = "sigmas" in inspect.signature(fresh.set_timesteps).parameters
        # Diffusers' pipelines leave the levels to solvers that are set to a flow.
        chooses = not takes_levels or fresh.config.get("use_flow_sigmas")
        chosen = {} if levels is None or chooses else {"sigmas": levels(steps)}
        fresh.set_timesteps(steps, device=device, **chosen)
        _within_schedule(fresh, steps)
    except UNFIT as error:
        raise refusal(kind, sampler, steps, error) from error
    return fresh


def _within_schedule(scheduler: Any, steps: int) -> None:
    """No step below timestep 0, where there is nothing to denoise.

    Of some numbers of steps, such as 61 of 1000 timesteps, diffusers' trailing ones are one too
    many by rounding, the last at -1, which to an array of noise levels is the noisiest.
    """
    times = scheduler.timesteps
    if times.min() >= 0:
        return
    if len(times) == steps + 1:
        times = times[:steps]
        if hasattr(scheduler, "sigmas"):  # with the one that it ends at
            scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
    scheduler.timesteps = times.clamp_min(0)


def _dpmsolver(config: Mapping[str, Any]) -> dict[str, Any]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095), second order but for the last step."""
    settings: dict[str, Any] = {
        **SPACING,
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "lower_order_final": True,
        "final_sigmas_type": "zero",
        "variance_type": None,
    }
    if config.get("clip_sample") and config.get("clip_sample_range", 1.0) == 1.0:
        # This class's name for clipping the predicted image to [-1, 1].
        settings |= {"thresholding": True, "sample_max_value": 1.0}
    if config["beta_schedule"] == "squaredcos_cap_v2":
        # The cosine schedule ends where rounding errors rule.
        settings["lambda_min_clipped"] = -5.1
    return settings


def refusal(kind: type, sampler: str, steps: int, error: Exception) -> UserError:
    """What to tell a user of what such a scheduler has raised."""
    return UserError(
        f"evaluate.sampler = {sampler}, evaluate.sampler_steps = {steps}: {kind.__name__} "
        f"refuses ({first_sentence(error)}); choose another sampler or number of steps"
    )
