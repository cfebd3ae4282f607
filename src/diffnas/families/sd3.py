"""Text-to-image transformers of two streams: Stable Diffusion 3 and 3.5 (arXiv 2403.03206)."""

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from diffnas.families import Family, dit, unet2d
from diffnas.families.conditions import Condition
from diffnas.student.modeling import DiffNASSD3Transformer2DModel

TOKENS = 77 + 256
"""Of CLIP's encoders, and behind them T5's."""

TEXTS, POOLED = "encoder_hidden_states", "pooled_projections"


def example_condition(denoiser: nn.Module, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    transformer: Any = denoiser
    config = transformer.config
    return {
        TEXTS: torch.zeros(batch_size, TOKENS, config.joint_attention_dim, device=device),
        POOLED: torch.zeros(batch_size, config.pooled_projection_dim, device=device),
    }


def inputs(
    denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
) -> dict[str, Any]:
    """Keyword arguments of a call."""
    return {"hidden_states": noisy, "timestep": timesteps.expand(len(noisy)), **condition}


@torch.no_grad()
def captions(pipeline: Any, texts: list[str]) -> Condition:
    """What the pipeline's text encoders make of captions."""
    return _encoded(pipeline, texts)[0]


@torch.no_grad()
def nothing(pipeline: Any) -> Condition:
    """The pipeline's negative prompt when none is given."""
    return _encoded(pipeline, [""])[1]


def _encoded(pipeline: Any, texts: list[str]) -> tuple[Condition, Condition]:
    """The captions' condition, and as often that of none, as the pipeline itself makes them."""
    device = next(pipeline.transformer.parameters()).device
    given = pipeline.encode_prompt(prompt=texts, prompt_2=None, prompt_3=None, device=device)
    told, untold, pooled, unpooled = (each.float() for each in given)
    return {TEXTS: told, POOLED: pooled}, {TEXTS: untold, POOLED: unpooled}


FAMILY = Family(
    name="sd3",
    component="transformer",
    classes=(SD3Transformer2DModel, DiffNASSD3Transformer2DModel),
    supports=dit.supports,
    block_names=dit.block_names,
    streams=None,
    sample_shape=dit.sample_shape,
    class_count=lambda _: None,
    example_condition=example_condition,
    inputs=inputs,
    prediction=unet2d.prediction,
    beside=(
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
        *("image_encoder", "feature_extractor"),
    ),
    captions=captions,
    nothing=nothing,
)
