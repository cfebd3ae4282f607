"""The models of `memory.py`: small, of random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from shapes.parts import tokenizer
from transformers import CLIPTextConfig, CLIPTextModel
from untrained import cifar_unet, small_unet

from diffnas.families import Teacher, dit, unet2d, unet2d_condition
from diffnas.settings import TeacherPrecision


@dataclass(frozen=True)
class Model:
    """How a teacher is made, whole and for `--quick`, and what it is compressed with."""

    make: Callable[[], Teacher]
    small: Callable[[], Teacher]
    batch_size: int
    trunk: bool = False
    saving: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings that save memory, by section."""
    teacher_precision: TeacherPrecision = "fp32"


def of_pixels(unet: Any) -> Teacher:
    """A teacher around a UNet."""
    pipeline = SimpleNamespace(unet=unet, scheduler=DDPMScheduler())
    return Teacher("unet", pipeline, unet, unet2d.FAMILY)


def stable_diffusion(width: int = 64, size: int = 16, layers: int = 12) -> Teacher:
    """Stable Diffusion with four levels from ``width`` on; its text encoder 8 times as wide."""
    widths = (width, 2 * width, 4 * width, 4 * width)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8 * width,
        intermediate_size=32 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    groups = min(32, width)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=groups,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(
            sample_size=size,
            block_out_channels=widths,
            cross_attention_dim=8 * width,
            attention_head_dim=min(8, width),
            norm_num_groups=groups,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Teacher("sd", pipeline, pipeline.unet, unet2d_condition.FAMILY)


def transformer(layers: int = 12, heads: int = 6, size: int = 32) -> Teacher:
    """A DiT of heads of 64 channels."""
    denoiser = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=64, num_layers=layers, sample_size=size
    )
    pipeline = SimpleNamespace(transformer=denoiser, scheduler=DDIMScheduler(clip_sample=False))
    return Teacher("dit", pipeline, denoiser, dit.FAMILY)


SAVING: Mapping[str, Mapping[str, Any]] = {
    "supernet": {"groups": 3},
    "retrain": {"gradient_checkpointing": True},
}

MODELS = {
    "unet": Model(lambda: of_pixels(cifar_unet()), lambda: of_pixels(small_unet()), 8),
    "trunk": Model(lambda: of_pixels(cifar_unet()), lambda: of_pixels(small_unet()), 8, True),
    "saving": Model(
        lambda: of_pixels(cifar_unet()), lambda: of_pixels(small_unet()), 8, True, SAVING
    ),
    "half": Model(
        lambda: of_pixels(cifar_unet()),
        lambda: of_pixels(small_unet()),
        8,
        True,
        teacher_precision="bf16",
    ),
    "sd": Model(stable_diffusion, lambda: stable_diffusion(8, 8, 2), 16),
    "dit": Model(transformer, lambda: transformer(2, 2, 8), 8),
}
