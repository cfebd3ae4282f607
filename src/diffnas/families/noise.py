"""The noise that a pipeline's scheduler says its denoiser was trained with.

In DDPM's form (Ho et al. 2020, arXiv 2006.11239): with a(t) the cumulative product of alphas,
noisy = sqrt(a) * image + sqrt(1 - a) * noise. Or of a straight flow (Liu et al., arXiv 2209.03003;
Esser et al., arXiv 2403.03206): noisy = (1 - s) * image + s * noise, s(t) from 0 to 1.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffnas.errors import UserError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
COMMON_SCHEDULES = BETA_SCHEDULES[:3]
"""Those that all of diffusers' samplers know; the others are known to DDPM's alone."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
FLOW = "flow_prediction"
"""What solvers that also know diffusions call the prediction of a flow."""

OTHER_STEPS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
)
"""With these such solvers leave a flow's steps aside."""


def unsupported_noise(config: Mapping[str, Any]) -> str | None:
    """Say why a scheduler's config cannot be trained with; None if it can."""
    name = config.get("_class_name") or "the scheduler"
    if is_flow(config):
        return _unsupported_flow(config, name)
    if "beta_schedule" not in config:
        return (
            f"{name} has no beta schedule, nor is it a flow that is supported; if the model can be "
            "sampled with a DDPM-like scheduler, or of flows FlowMatchEulerDiscreteScheduler, save "
            "its pipeline with that"
        )
    if config.get("use_flow_sigmas") or prediction_type(config) == FLOW:
        return (
            f"{name} has use_flow_sigmas {bool(config.get('use_flow_sigmas'))} and prediction_type "
            f"'{prediction_type(config)}'; save the pipeline with True and '{FLOW}' for a flow, "
            "with neither for a diffusion"
        )
    if config.get("trained_betas") is None and config["beta_schedule"] not in BETA_SCHEDULES:
        known = ", ".join(BETA_SCHEDULES)
        return f"{name} has beta_schedule '{config['beta_schedule']}'; supported are {known}"
    if config.get("timestep_type", "discrete") != "discrete":
        return (
            f"{name} has timestep_type '{config['timestep_type']}', so its denoiser is told levels "
            "of noise; supported are whole timesteps"
        )
    if prediction_type(config) not in PREDICTION_TYPES:
        known = ", ".join(PREDICTION_TYPES)
        return f"{name} has prediction_type '{config['prediction_type']}'; supported are {known}"
    return None


def _unsupported_flow(config: Mapping[str, Any], name: str) -> str | None:
    if config.get("use_dynamic_shifting"):
        return (
            f"{name} has use_dynamic_shifting, which is supported of FLUX with "
            "FlowMatchEulerDiscreteScheduler alone; save the pipeline with that, or a fixed shift"
        )
    for setting in ("invert_sigmas", *(OTHER_STEPS if of_diffusions(config) else ())):
        if config.get(setting):
            return (
                f"{name} has {setting}, which is not supported of a flow; save the pipeline with a "
                "scheduler without it"
            )
    return None


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is the config of diffusers' ``FlowMatchEulerDiscreteScheduler``.

    Or of a solver of diffusions, such as DPM-Solver or UniPC, that is set to a flow.
    """
    if of_diffusions(config):
        return bool(config.get("use_flow_sigmas")) and prediction_type(config) == FLOW
    return {"shift", "base_shift"} <= set(config)


def of_diffusions(config: Mapping[str, Any]) -> bool:
    """Whether it is the config of a scheduler of diffusions, though it may be set to a flow."""
    return "beta_schedule" in config


def follows_size(config: Mapping[str, Any]) -> bool:
    """Whether it is the config of a flow whose shift follows the image's size."""
    # Solvers leave out what the shift follows.
    return (
        is_flow(config) and not of_diffusions(config) and bool(config.get("use_dynamic_shifting"))
    )


def flow_shift(config: Mapping[str, Any]) -> float:
    """The fixed shift of a flow."""
    return float(config.get("flow_shift", 1.0) if of_diffusions(config) else config["shift"])


def at_size(config: Mapping[str, Any], mu: float) -> Mapping[str, Any]:
    """The config of such a flow with a fixed shift, that of one size.

    It is ``mu`` or its exponential function (Esser et al., arXiv 2403.03206).
    """
    shift = math.exp(mu) if config["time_shift_type"] == "exponential" else mu
    return {**config, "use_dynamic_shifting": False, "shift": shift}


def flow_sigmas(config: Mapping[str, Any], timesteps: Tensor) -> Tensor:
    """s(t) for integer timesteps, float32: k * u / (1 + (k - 1) * u), k the config's shift."""
    share = (timesteps + 1).float() / train_timesteps(config)
    shift = flow_shift(config)
    return shift * share / (1 + (shift - 1) * share)


def told_timesteps(config: Mapping[str, Any], timesteps: Tensor) -> Tensor:
    """What the denoiser is told of integer timesteps: themselves, or of a flow s(t) of them all."""
    if not is_flow(config):
        return timesteps
    return flow_sigmas(config, timesteps) * train_timesteps(config)


def prediction_type(config: Mapping[str, Any]) -> str:
    """What the denoiser predicts: 'epsilon' unless the scheduler's config says otherwise."""
    return str(config.get("prediction_type") or "epsilon")


def train_timesteps(config: Mapping[str, Any]) -> int:
    """Timesteps run from 0 to this number less one."""
    return int(config["num_train_timesteps"])


def add_noise(
    config: Mapping[str, Any], images: Tensor, noise: Tensor, timesteps: Tensor
) -> tuple[Tensor, Tensor]:
    """Noisy images and what the denoiser should predict from them, shapes (B, C, H, W).

    ``timesteps``: integers (B,). The target is the noise, the velocity sqrt(a) * noise -
    sqrt(1 - a) * image (Salimans and Ho 2022, arXiv 2202.00512), or the image; of a flow,
    noise - image.

    Raises:
        UserError: the scheduler has no such noise.
    """
    if (why := unsupported_noise(config)) is not None:
        raise UserError(why)
    if is_flow(config):
        sigmas = flow_sigmas(config, timesteps).to(images)[:, None, None, None]
        return (1 - sigmas) * images + sigmas * noise, noise - images
    alphas = alphas_cumprod(config).to(images.device)[timesteps.to(images.device)]
    signal = alphas.sqrt().to(images.dtype)[:, None, None, None]
    spread = (1 - alphas).sqrt().to(images.dtype)[:, None, None, None]
    noisy = signal * images + spread * noise
    kind = prediction_type(config)
    if kind == "epsilon":
        return noisy, noise
    if kind == "v_prediction":
        return noisy, signal * noise - spread * images
    return noisy, images


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """a(t) for every training timestep, on the CPU."""
    betas = config.get("trained_betas")
    return _alphas_cumprod(
        num_train_timesteps=train_timesteps(config),
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        beta_schedule=config["beta_schedule"],
        trained_betas=None if betas is None else tuple(float(beta) for beta in betas),
        rescale_betas_zero_snr=config.get("rescale_betas_zero_snr", False),
    )


def check_weighting(config: Mapping[str, Any], gamma: float | None) -> None:
    """Raise UserError if errors are to be weighted by a flow's signal and noise."""
    if gamma is not None and is_flow(config):
        raise UserError(
            f"retrain.snr_gamma = {gamma:g}: weights errors under DDPM's noise, and this model has "
            "a flow's; leave it out"
        )


def min_snr_weights(config: Mapping[str, Any], timesteps: Tensor, gamma: float) -> Tensor:
    """What errors of the prediction count, (B,), so that those of the image count min(SNR, gamma).

    ``timesteps``: integers (B,). SNR(t) = a(t) / (1 - a(t)) (Hang et al. 2023, arXiv 2303.09556).

    Raises:
        UserError: as :func:`check_weighting`.
    """
    check_weighting(config, gamma)
    alphas = alphas_cumprod(config)[timesteps]
    ratio = alphas / (1 - alphas)
    of_noise = (gamma / ratio).clamp(max=1)  # an image's error is the noise's over the SNR
    kind = prediction_type(config)
    if kind == "epsilon":
        return of_noise
    return of_noise * (alphas if kind == "v_prediction" else ratio)


def spelt_out(config: Mapping[str, Any]) -> dict[str, list[float]]:
    """``trained_betas`` for samplers that do not know the config's schedule; else nothing."""
    if config.get("trained_betas") is not None or config["beta_schedule"] in COMMON_SCHEDULES:
        return {}
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    # Not rescaled to zero terminal SNR: that is left to the sampler.
    return {"trained_betas": DDPMScheduler(**{name: config[name] for name in names}).betas.tolist()}


@lru_cache(maxsize=16)
def _alphas_cumprod(**settings: Any) -> Tensor:
    return DDPMScheduler(**settings).alphas_cumprod


def even_timesteps(config: Mapping[str, Any], count: int) -> Tensor:
    """``count`` integer timesteps spread evenly over the schedule, in rising order."""
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (middles * train_timesteps(config)).long()
