"""Text-to-image transformers of two streams, then of one: FLUX.1 dev and schnell.

They denoise latents in squares of 2 by 2, packed as tokens. Of dev, guidance is distilled into the
denoiser (Meng et al., arXiv 2210.03142), which is told its scale; of schnell, it is left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from diffnas.families import Family
from diffnas.families.conditions import GUIDANCE, Condition, own_guidance, through
from diffnas.families.family import Size
from diffnas.student.modeling import DiffNASFluxTransformer2DModel

SIZE = 128
"""Height and width of the latents that its pipelines make unless asked for others."""

TOKENS = 512
"""Of T5's states, padded."""

TEXTS, POOLED = "encoder_hidden_states", "pooled_projections"


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    config, size = denoiser.config, latent_size(denoiser)
    if denoiser.out_channels != config.in_channels or config.in_channels % 4:
        return (
            f"in_channels {config.in_channels} and out_channels {denoiser.out_channels}: supported "
            "are as many of both, four for each of the latents; models that take an image or a "
            "mask besides are not"
        )
    if config.patch_size != 1:
        return f"patch_size {config.patch_size} is not supported; 1 is"
    if not isinstance(size, int) or size < 4 or size % 2:
        return (
            f"sample_size {size!r} in the denoiser's config.json: latents are taken 2 by 2; set an "
            "even number from 4 on, or leave it out"
        )
    return None


def block_names(denoiser: Any) -> list[str]:
    """One block per layer, those of two streams first."""
    lists = ("transformer_blocks", "single_transformer_blocks")
    return [f"{name}.{i}" for name in lists for i in range(len(getattr(denoiser, name)))]


def sample_shape(denoiser: Any) -> tuple[int, int, int]:
    """(C, H, W) of latents."""
    size = latent_size(denoiser)
    return denoiser.config.in_channels // 4, size, size


def tokens(denoiser: Any) -> int:
    """Squares of 2 by 2 latents."""
    return (latent_size(denoiser) // 2) ** 2


def mu(denoiser: Any, config: Mapping[str, Any], _: int) -> float:
    """A line in the number of tokens (``calculate_shift`` of diffusers' FLUX pipelines)."""
    least, most = config["base_image_seq_len"], config["max_image_seq_len"]
    share = (tokens(denoiser) - least) / (most - least)
    return float(config["base_shift"] + share * (config["max_shift"] - config["base_shift"]))


def levels(steps: int) -> list[float]:
    """Where its pipelines start their steps."""
    return [float(level) for level in np.linspace(1.0, 1 / steps, steps)]


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    config = denoiser.config
    sizes: dict[str, tuple[int, ...]] = {
        TEXTS: (TOKENS, config.joint_attention_dim),
        POOLED: (config.pooled_projection_dim,),
    }
    if config.guidance_embeds:
        sizes[GUIDANCE] = ()
    return {name: torch.zeros(batch_size, *size, device=device) for name, size in sizes.items()}


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    squares = noisy.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, h, 2, w, 2)
    rows, columns = squares.shape[2], squares.shape[4]
    return {
        "hidden_states": squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
        "timestep": timesteps.expand(len(noisy)) / 1000,
        **condition,
        "txt_ids": torch.zeros(condition[TEXTS].shape[1], 3, device=noisy.device),
        "img_ids": places(rows, columns, noisy.device),
    }


def places(rows: int, columns: int, device: torch.device) -> Tensor:
    """(0, row, column) of each token, (N, 3)."""
    spread = [torch.arange(count, device=device).float() for count in (1, rows, columns)]
    return torch.stack(torch.meshgrid(*spread, indexing="ij"), dim=-1).flatten(0, 2)


def prediction(output: Any, size: Size) -> Tensor:
    """Predicted tensor (B, C, H, W) of a denoiser's output."""
    made: Tensor = output.sample
    squares = made.unflatten(2, (-1, 2, 2)).unflatten(1, (-1, size[1] // 2))  # (B, h, w, C, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def sides(denoiser: Any) -> range:
    """Heights and widths of whole squares; positions are turned, so that there are enough."""
    return range(2, 2 * latent_size(denoiser) + 1, 2)


def encoded(pipeline: Any, texts: list[str], _: bool) -> Condition:
    """As the pipeline itself encodes them."""
    device = next(pipeline.transformer.parameters()).device
    told, pooled, _ids = pipeline.encode_prompt(texts, device=device)
    found = {TEXTS: told, POOLED: pooled}
    if pipeline.transformer.config.guidance_embeds:
        found[GUIDANCE] = torch.full((len(texts),), own_guidance(pipeline), device=device)
    return found


def latent_size(denoiser: Any) -> Any:
    """Height and width of latents before they are packed."""
    # Not an argument of its class, but an entry that diffusers keeps.
    return denoiser.config.get("sample_size", SIZE)


FAMILY = Family(
    name="flux",
    component="transformer",
    classes=(FluxTransformer2DModel, DiffNASFluxTransformer2DModel),
    supports=supports,
    block_names=block_names,
    sample_shape=sample_shape,
    example_condition=example_condition,
    inputs=inputs,
    prediction=prediction,
    sides=sides,
    beside=(
        *("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        *("image_encoder", "feature_extractor"),
    ),
    encoders=lambda _: ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    captions=through(encoded)["captions"],  # there is no negative prompt
    shared=("txt_ids", "img_ids"),
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    mu=mu,
    levels=levels,
    distilled=lambda _: True,
)
