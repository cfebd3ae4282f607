"""Transformers: DiT, PixArt, Stable Diffusion 3, FLUX and FLUX.2."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModelWithProjection

from tests.models.parts import (
    tiny_autoencoder,
    tiny_qwen,
    tiny_t5,
    tiny_text_encoder,
    tiny_tokenizer,
)


def tiny_dit(**overrides: Any) -> DiTPipeline:
    """Three layers of two heads for ten classes, with a learned variance; images of 16 by 16."""
    config: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 3,
        "sample_size": 8,
        "num_embeds_ada_norm": 10,
    }
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(**{**config, **overrides}).eval()
    scheduler = DDIMScheduler(clip_sample=False)
    labels = {0: "zero", 1: "one, unit"}
    return DiTPipeline(transformer, tiny_autoencoder(), scheduler, id2label=labels)


def tiny_pixart(**overrides: Any) -> PixArtSigmaPipeline:
    """Three layers of two heads, with a learned variance; images of 16 by 16."""
    config: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 3,
        "cross_attention_dim": 16,
        "caption_channels": 32,
        "sample_size": 8,
    }
    torch.manual_seed(0)
    encoder, tokenizer = tiny_t5()
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=tiny_autoencoder(),
        transformer=PixArtTransformer2DModel(**{**config, **overrides}).eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )


def tiny_pixart_alpha(**overrides: Any) -> PixArtAlphaPipeline:
    """Told the size of the image, for which its width must be divisible by three."""
    config: dict[str, Any] = {
        "use_additional_conditions": True,
        "num_attention_heads": 3,
        "cross_attention_dim": 24,
    }
    made = tiny_pixart(**{**config, **overrides})
    return PixArtAlphaPipeline(**made.components)


def tiny_sd3(**overrides: Any) -> StableDiffusion3Pipeline:
    """Three layers of two heads, one of them with a second attention; images of 16 by 16."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (1,),
        "qk_norm": "rms_norm",
    }
    torch.manual_seed(0)
    encoder, tokenizer = tiny_t5(64)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**{**config, **overrides}).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_autoencoder(shift_factor=0.1),
        text_encoder=tiny_text_encoder(CLIPTextModelWithProjection),
        text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection),
        text_encoder_3=encoder,
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer(),
        tokenizer_3=tokenizer,
    )


def tiny_flux(*, distilled: bool = True, size: int = 8, **overrides: Any) -> FluxPipeline:
    """Two layers of two streams and two of one, of two heads; images of twice the size.

    ``distilled``: with guidance, as dev, whose noise follows the size; else as schnell.
    """
    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "guidance_embeds": distilled,
        "axes_dims_rope": (2, 2, 4),
    }
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(**{**config, **overrides}).eval()
    transformer.register_to_config(sample_size=size)
    encoder, tokenizer = tiny_t5()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if distilled else 1.0, use_dynamic_shifting=distilled
        ),
        vae=tiny_autoencoder(shift_factor=0.1),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        transformer=transformer,
    )


def tiny_flux2(
    *, distilled: bool = False, size: int = 8, latents: int = 4, **overrides: Any
) -> Flux2KleinPipeline:
    """Two layers of two streams and two of one, of two heads; images of twice the size.

    ``distilled``: to few steps, without guidance; ``latents``: channels of the autoencoder's.
    """
    config: dict[str, Any] = {
        "in_channels": 4 * latents,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "guidance_embeds": False,
        "axes_dims_rope": (2, 2, 2, 2),
    }
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(**{**config, **overrides}).eval()
    transformer.register_to_config(sample_size=size)
    coder = tiny_autoencoder(AutoencoderKLFlux2, latent_channels=latents)
    coder.bn.running_mean.normal_()
    coder.bn.running_var.uniform_(0.5, 2.0)
    encoder, tokenizer = tiny_qwen()
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=coder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=distilled,
    )
