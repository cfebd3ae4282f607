"""UNets of latents: LDM, Stable Diffusion and XL."""

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    LDMPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from transformers import CLIPTextModelWithProjection

from tests.models.parts import tiny_autoencoder, tiny_text_encoder, tiny_tokenizer
from tests.models.unets import tiny_unet


def tiny_latent_pipeline(coder: type = VQModel, **overrides: Any) -> LDMPipeline:
    """Latents of 3 channels, 8 by 8, of colour images of 16 by 16."""
    return LDMPipeline(
        vqvae=tiny_autoencoder(coder, **{"latent_channels": 3, **overrides}),
        unet=tiny_unet(in_channels=3, out_channels=3),
        scheduler=DDIMScheduler(clip_sample=False),
    )


def tiny_condition_unet(seed: int = 0, **overrides: Any) -> UNet2DConditionModel:
    """Two levels, the lower one with cross-attention to 32 channels of text; random weights."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    }
    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**config, **overrides}).eval()


SD_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion's."""


def tiny_stable_diffusion(
    prediction: str = "epsilon", kind: type = StableDiffusionPipeline, **overrides: Any
) -> Any:
    """Stable Diffusion 1 or 2, very small: colour images of 16 by 16."""
    return kind(
        vae=tiny_autoencoder(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        unet=tiny_condition_unet(**overrides),
        scheduler=DDIMScheduler(prediction_type=prediction, **SD_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_lcm(**overrides: Any) -> Any:
    """A latent consistency model: told the scale of the guidance that is distilled into it."""
    told = {"time_cond_proj_dim": 16, **overrides}
    pipeline = tiny_stable_diffusion(kind=LatentConsistencyModelPipeline, **told)
    pipeline.register_modules(scheduler=LCMScheduler(beta_schedule="scaled_linear"))
    return pipeline


def tiny_inpainting(prediction: str = "epsilon", **overrides: Any) -> Any:
    """Stable Diffusion that fills holes: 9 channels of latents go in, 4 come out."""
    return tiny_stable_diffusion(
        prediction, StableDiffusionInpaintPipeline, **{"in_channels": 9, **overrides}
    )


def tiny_xl(kind: type = StableDiffusionXLPipeline, **overrides: Any) -> Any:
    """Stable Diffusion XL, very small: two text encoders, added conditions, deeper transformers."""
    config: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "cross_attention_dim": 64,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
    }
    return kind(
        vae=tiny_autoencoder(),
        text_encoder=tiny_text_encoder(),
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer(),
        unet=tiny_condition_unet(**{**config, **overrides}),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    )


def tiny_xl_inpainting(**overrides: Any) -> Any:
    """XL that fills holes."""
    return tiny_xl(StableDiffusionXLInpaintPipeline, **{"in_channels": 9, **overrides})


def tiny_refiner(**overrides: Any) -> Any:
    """XL's refiner, very small: the second text encoder alone, and a score beside the sizes."""
    config: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 5 * 8 + 32,
        "use_linear_projection": True,
    }
    return StableDiffusionXLImg2ImgPipeline(
        vae=tiny_autoencoder(),
        text_encoder=None,
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        tokenizer=None,
        tokenizer_2=tiny_tokenizer(),
        unet=tiny_condition_unet(**{**config, **overrides}),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )
