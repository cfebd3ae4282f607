"""Pipelines of diffusers' own classes with untrained denoisers, as large as a CPU can train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    LDMPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from shapes.parts import TEXT

STABLE_DIFFUSION = Path(__file__).parents[1] / "configs" / "stable-diffusion-1.5"
LATENTS: Mapping[str, Any] = {"sample_size": 8, "in_channels": 4, "out_channels": 4}
UNET: Mapping[str, Any] = {
    "layers_per_block": 2,
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}


@dataclass(frozen=True)
class Parts:
    """What denoisers of shapes go with; loaded anew for every pipeline."""

    autoencoder: Callable[[], Any]
    tokenizer: Callable[[], Any]
    text_encoder: Callable[[], Any]
    text_encoder_with_projection: Callable[[], Any]


def ddim() -> DDIMScheduler:
    """With Stable Diffusion's noise."""
    return DDIMScheduler.from_pretrained(STABLE_DIFFUSION, subfolder="scheduler", clip_sample=False)


def unet2d(**config: Any) -> UNet2DModel:
    """Attention on the lower of two levels."""
    return UNet2DModel(
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **UNET,
        **config,
    )


def of_digits(parts: Parts) -> DDPMPipeline:
    """Class-conditional, of pixels: the ten digits."""
    unet = unet2d(sample_size=8, in_channels=1, out_channels=1, num_class_embeds=10)
    return DDPMPipeline(unet, DDPMScheduler())


def latent(parts: Parts) -> LDMPipeline:
    """Unconditional, of latents."""
    return LDMPipeline(parts.autoencoder(), unet2d(**LATENTS), ddim())


def texts(parts: Parts) -> StableDiffusionPipeline:
    """Stable Diffusion: cross-attention to CLIP's text states."""
    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT,
        **LATENTS,
        **UNET,
    )
    return StableDiffusionPipeline(
        vae=parts.autoencoder(),
        text_encoder=parts.text_encoder(),
        tokenizer=parts.tokenizer(),
        unet=unet,
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def classes(parts: Parts) -> DiTPipeline:
    """DiT: six layers of 64 tokens, for the sixteen kinds of shape."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=6,
        patch_size=1,
        num_embeds_ada_norm=16,
        **LATENTS,
    )
    return DiTPipeline(transformer, parts.autoencoder(), ddim())


def flow(parts: Parts) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3 without T5, whose 256 tokens stay zero: four layers of 64 + 333 tokens."""
    transformer = SD3Transformer2DModel(
        patch_size=1,
        num_layers=4,
        num_attention_heads=3,
        attention_head_dim=16,
        caption_projection_dim=48,
        joint_attention_dim=2 * TEXT,
        pooled_projection_dim=2 * TEXT,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
        **LATENTS,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.autoencoder(),
        text_encoder=parts.text_encoder_with_projection(),
        text_encoder_2=parts.text_encoder_with_projection(),
        text_encoder_3=None,
        tokenizer=parts.tokenizer(),
        tokenizer_2=parts.tokenizer(),
        tokenizer_3=None,
    )


@dataclass(frozen=True)
class Form:
    """How a teacher is made and trained: ``steps`` of ``batch_size`` at a peak ``rate``."""

    make: Callable[[Parts], Any]
    data: str
    steps: int
    batch_size: int = 64
    rate: float = 1e-3
    optimizer: Literal["adamw", "muon"] = "adamw"


FORMS: Mapping[str, Form] = {
    "digits": Form(of_digits, "digits", 6000),
    "latent": Form(latent, "shapes", 4000),
    "texts": Form(texts, "shapes", 4000),
    "classes": Form(classes, "shapes", 12_000, rate=1e-2, optimizer="muon"),
    "flow": Form(flow, "shapes", 7500, batch_size=32, rate=1e-2, optimizer="muon"),
}


def untrained(form: str, parts: Parts, seed: int = 0) -> Any:
    """The pipeline of this form; the seed gives the denoiser's random weights."""
    torch.manual_seed(seed)
    return FORMS[form].make(parts)
