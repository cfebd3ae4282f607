"""The sampling loop.

Image i of a seed starts from noise that depends on (seed, i) alone, made on the CPU, and so does
the noise that stochastic samplers add: not on batch size, device or number of threads.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from diffnas.errors import RunError, UserError
from diffnas.families.noise import is_flow, spelt_out, train_timesteps
from diffnas.parallel import thread_map, workers_for
from diffnas.rng import generator

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy images (B, C, H, W), timestep) -> the denoiser's prediction."""

Levels = Callable[[int], list[float]]
"""Number of steps -> the share of noise that each starts at, from 1 down, before any shift."""

# Trailing steps start from the last training timestep, where the start noise belongs (Lin et al.
# 2023, arXiv 2305.08891); with few steps, leading ones begin too late and leave noise in.
SPACING = {"timestep_spacing": "trailing"}

_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
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
    if sampler == "euler":
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if sampler == "dpmsolver":
        return DPMSolverMultistepScheduler(
            num_train_timesteps=train_timesteps(config),
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=config["shift"],
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
        chosen = {"sigmas": levels(steps)} if levels is not None and takes_levels else {}
        fresh.set_timesteps(steps, device=device, **chosen)
    except _UNFIT as error:
        raise _refusal(kind, sampler, steps, error) from error
    return fresh


def check_sampler(
    scheduler: Any,
    sampler: str,
    steps: int,
    device: torch.device,
    levels: Levels | None = None,
) -> None:
    """Take all steps with an image of one pixel and a model that predicts zeros.

    Some schedulers say only in a step that they do not take what the model predicts.

    Raises:
        UserError: the sampler is unknown, or does not fit the scheduler or the number of steps.
    """
    fresh = fresh_scheduler(scheduler, sampler, steps, device, levels)
    pixel = torch.zeros(1, 1, 1, 1, device=device)
    try:
        _denoise(
            fresh,
            lambda noisy, _: torch.zeros_like(noisy),
            pixel,
            [generator(0, "check", 0)],
        )
    except _UNFIT as error:
        raise _refusal(type(fresh), sampler, steps, error) from error


def _refusal(kind: type, sampler: str, steps: int, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return UserError(
        f"evaluate.sampler = {sampler}, evaluate.sampler_steps = {steps}: {kind.__name__} "
        f"refuses ({reason}); choose another sampler or number of steps"
    )


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


def sample_images(
    scheduler: Any,
    prepare: Callable[[Tensor], Denoise],
    shape: tuple[int, int, int],
    count: int,
    *,
    seed: int,
    sampler: str,
    steps: int,
    batch_size: int,
    device: torch.device,
    levels: Levels | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    macs: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """``count`` images, uint8 (count, C, H, W).

    ``scheduler``: the pipeline's own; it is left as it is. ``levels``: as in
    :func:`fresh_scheduler`. ``prepare``: indices of a batch's images
    (B,) -> its denoising. ``shape``: of what is denoised, from which ``decode`` makes images if it
    is not yet. ``macs``: of denoising one image once; small batches are made side by side, large
    ones one after the other. ``progress`` is called with the number of images made so far.

    Raises:
        UserError: the sampler does not fit the scheduler.
        RunError: the denoiser gave values that are not finite.
    """

    def run(indices: Tensor) -> npt.NDArray[np.uint8]:
        own = fresh_scheduler(scheduler, sampler, steps, device, levels)
        generators = [generator(seed, "sample", int(index)) for index in indices]
        noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
        with torch.no_grad():
            images = _denoise(own, prepare(indices), noise.to(device), generators)
        return to_uint8(images if decode is None else decode(images))

    batches = list(torch.arange(count).split(batch_size))

    def report(done: int) -> None:
        if progress is not None:
            progress(min(done * batch_size, count))

    # A single batch has no other to run beside, so it gets all threads.
    workers = min(workers_for(device, macs * min(batch_size, count)), len(batches))
    return np.concatenate(thread_map(run, batches, workers, report))


def _denoise(
    scheduler: Any,
    predict: Denoise,
    noise: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    # A flow's scheduler has neither: its noise is 1, its input as it is.
    images = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scale = getattr(scheduler, "scale_model_input", lambda given, _: given)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generators} if takes_generator else {}
    for timestep in scheduler.timesteps:
        prediction = predict(scale(images, timestep), _whole(timestep))
        images = scheduler.step(prediction, timestep, images, **extra).prev_sample
    return images


def _whole(timestep: Tensor) -> Tensor:
    """As an integer, as in training, where the scheduler's float is one."""
    return timestep if timestep != timestep.round() else timestep.long()


def to_uint8(images: Tensor) -> npt.NDArray[np.uint8]:
    """Images nearly in [-1, 1] as levels.

    Raises:
        RunError: they are not finite.
    """
    if not bool(images.isfinite().all()):
        raise RunError("sampling gave values that are not finite; the denoiser has diverged")
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).cpu().numpy()
