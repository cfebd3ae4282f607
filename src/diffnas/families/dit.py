"""Class-conditional transformers: ``DiTTransformer2DModel`` (Peebles and Xie, arXiv 2212.09748)."""

from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from diffnas.families import Family
from diffnas.families.conditions import CLASSES, Condition
from diffnas.student.modeling import DiffNASDiTTransformer2DModel


def supports(denoiser: Any) -> str | None:
    """Say in a line why this denoiser cannot be searched; None if it can."""
    config = denoiser.config
    if denoiser.out_channels not in (config.in_channels, 2 * config.in_channels):
        return (
            f"in_channels {config.in_channels} and out_channels {denoiser.out_channels}: supported "
            "are as many, or twice as many with a learned variance"
        )
    return None


def block_names(denoiser: Any) -> list[str]:
    """One block per transformer layer."""
    return [f"transformer_blocks.{i}" for i in range(len(denoiser.transformer_blocks))]


def sample_shape(denoiser: Any) -> tuple[int, int, int]:
    """(C, H, W) of latents."""
    config = denoiser.config
    return config.in_channels, config.sample_size, config.sample_size


def class_count(denoiser: Any) -> int:
    """How many classes the denoiser takes."""
    return int(denoiser.config.num_embeds_ada_norm)


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    return {CLASSES: torch.zeros(batch_size, dtype=torch.long, device=device)}


def inputs(denoiser: Any, noisy: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
    """Keyword arguments of a call."""
    return {"hidden_states": noisy, "timestep": timesteps.expand(len(noisy)), **condition}


def nothing(pipeline: Any) -> Condition:
    """The class after the last one."""
    return {CLASSES: torch.tensor([class_count(pipeline.transformer)])}


FAMILY = Family(
    name="dit",
    component="transformer",
    classes=(DiTTransformer2DModel, DiffNASDiTTransformer2DModel),
    supports=supports,
    block_names=block_names,
    sample_shape=sample_shape,
    class_count=class_count,
    example_condition=example_condition,
    inputs=inputs,
    # The head takes its embedding of timestep and class.
    needed=("transformer_blocks.0",),
    outside=("transformer_blocks.0.norm1.emb",),
    nothing=nothing,
)
