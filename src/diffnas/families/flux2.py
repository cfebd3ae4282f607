"""Text-to-image transformers of two streams, then of one, with shared modulation: FLUX.2 klein.

Their latents come in squares of 2 by 2 already, each with its pixels as channels. A base model is
guided by what it predicts without a text; one that was distilled to few steps is not guided at all.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor
from torch.nn import functional as F

from diffnas.families import Family, flux
from diffnas.families.conditions import Condition, through
from diffnas.families.family import Size
from diffnas.student.modeling import DiffNASFlux2Transformer2DModel

TOKENS = 512
"""Of Qwen3's states, padded."""

TEXTS = "encoder_hidden_states"

FEW = (8.73809524e-05, 1.89833333)
MANY = (0.00016927, 0.45666666)
"""The shift for 10 and for 200 steps, as lines (slope, start) in the number of tokens.

Source: ``compute_empirical_mu`` of diffusers' FLUX.2 pipelines, whose modules take transformers.
"""

LARGE = 4300
"""Beyond so many tokens the shift is that for many steps, however many are taken (ibid.)."""


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    if denoiser.config.guidance_embeds:
        return "guidance_embeds is not supported: of FLUX.2, klein is, whose models have none"
    return flux.supports(denoiser)


def sample_shape(denoiser: Any) -> tuple[int, int, int]:
    """(C, H, W) of latents: a pixel is a square of them."""
    side = flux.latent_size(denoiser) // 2
    return denoiser.config.in_channels, side, side


def mu(denoiser: Any, _: Mapping[str, Any], steps: int) -> float:
    """A line in the number of steps, through those for 10 and for 200."""
    tokens = flux.tokens(denoiser)
    few, many = (slope * tokens + start for slope, start in (FEW, MANY))
    return many if tokens > LARGE else many + (few - many) * (200 - steps) / 190


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    width = denoiser.config.joint_attention_dim
    return {TEXTS: torch.zeros(batch_size, TOKENS, width, device=device)}


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    rows, columns = noisy.shape[2:]
    order = torch.arange(condition[TEXTS].shape[1], device=noisy.device).float()
    return {
        "hidden_states": noisy.flatten(2).transpose(1, 2),
        "timestep": timesteps.expand(len(noisy)) / 1000,
        **condition,
        "txt_ids": F.pad(order[:, None], (3, 0)),
        "img_ids": F.pad(flux.places(rows, columns, noisy.device), (0, 1)),
    }


def prediction(output: Any, size: Size) -> Tensor:
    """Predicted tensor (B, C, H, W) of a denoiser's output."""
    made: Tensor = output.sample
    return made.transpose(1, 2).unflatten(2, size)


def sides(denoiser: Any) -> range:
    """Heights and widths, of squares; positions are turned, so that there are enough."""
    return range(1, flux.latent_size(denoiser) + 1)


def encoded(pipeline: Any, texts: list[str], _: bool) -> Condition:
    """As the pipeline itself encodes them; of none, it takes an empty one."""
    device = next(pipeline.transformer.parameters()).device
    told, _ids = pipeline.encode_prompt(texts, device=device)
    return {TEXTS: told}


FAMILY = Family(
    name="flux2",
    component="transformer",
    classes=(Flux2Transformer2DModel, DiffNASFlux2Transformer2DModel),
    supports=supports,
    block_names=flux.block_names,
    sample_shape=sample_shape,
    example_condition=example_condition,
    inputs=inputs,
    prediction=prediction,
    sides=sides,
    beside=("text_encoder", "tokenizer"),
    **through(encoded),
    distilled=lambda pipeline: bool(pipeline.config.get("is_distilled")),
    pipelines=("Flux2KleinPipeline",),
    shared=flux.FAMILY.shared,
    mu=mu,
    square=2,
    levels=flux.levels,
)
