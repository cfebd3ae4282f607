"""Text-to-image transformers of two streams: Stable Diffusion 3 and 3.5 (arXiv 2403.03206)."""

from typing import Any

import torch
from diffusers import SD3Transformer2DModel

from diffnas.families import Family, dit
from diffnas.families.conditions import Condition, through
from diffnas.student.modeling import DiffNASSD3Transformer2DModel

TOKENS = 77 + 256
"""Of CLIP's encoders, and behind them T5's."""

TEXTS, POOLED = "encoder_hidden_states", "pooled_projections"


def example_condition(denoiser: Any, batch_size: int, device: torch.device) -> Condition:
    """Of zeros."""
    config = denoiser.config
    return {
        TEXTS: torch.zeros(batch_size, TOKENS, config.joint_attention_dim, device=device),
        POOLED: torch.zeros(batch_size, config.pooled_projection_dim, device=device),
    }


def encoded(pipeline: Any, texts: list[str], negative: bool) -> Condition:
    """As the pipeline itself encodes them."""
    given = pipeline.encode_prompt(
        prompt=texts,
        prompt_2=None,
        prompt_3=None,
        device=next(pipeline.transformer.parameters()).device,
        do_classifier_free_guidance=negative,
    )
    told, pooled = given[1::2] if negative else given[::2]
    return {TEXTS: told, POOLED: pooled}


def sides(denoiser: Any) -> range:
    """Heights and widths of whole tokens, up to as many as it has positions for."""
    patch = denoiser.config.patch_size
    return range(patch, patch * denoiser.config.pos_embed_max_size + 1, patch)


FAMILY = Family(
    name="sd3",
    component="transformer",
    classes=(SD3Transformer2DModel, DiffNASSD3Transformer2DModel),
    supports=dit.supports,
    block_names=dit.block_names,
    sample_shape=dit.sample_shape,
    sides=sides,
    example_condition=example_condition,
    inputs=dit.inputs,
    beside=(
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
        *("image_encoder", "feature_extractor"),
    ),
    encoders=lambda _: ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    **through(encoded),
)
