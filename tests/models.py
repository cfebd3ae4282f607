"""Small pipelines of the real classes, made on the spot."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    LDMPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "two layers": {"layers_per_block": 2},
    "attention above": {
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    },
    "no middle attention": {"add_attention": False},
    "other groups and eps": {"norm_num_groups": 8, "norm_eps": 0.1},
    "groups of their own in attention": {"attn_norm_num_groups": 2},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "padded outside": {"downsample_padding": 0},
    "resampled by resnets": {
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    },
    "resnet blocks that resample": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    },
    "scaled output": {"mid_block_scale_factor": 1.7},
    "classes and colour": {"num_class_embeds": 4, "in_channels": 3, "out_channels": 3},
    "one pixel": {"sample_size": 2},
}
"""What a UNet's configuration can vary, as arguments of :func:`tiny_unet`."""


def tiny_unet(seed: int = 0, **overrides: Any) -> UNet2DModel:
    """A two-level UNet with attention on the lower level; random weights."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    torch.manual_seed(seed)
    return UNet2DModel(**{**config, **overrides}).eval()


def tiny_pipeline(seed: int = 0, scheduler: Any = None, **overrides: Any) -> DDPMPipeline:
    """A DDPM pipeline around :func:`tiny_unet`."""
    return DDPMPipeline(unet=tiny_unet(seed, **overrides), scheduler=scheduler or DDPMScheduler())


def tiny_autoencoder(kind: type = AutoencoderKL, **overrides: Any) -> Any:
    """Latents of 4 channels, at half the side of colour images."""
    torch.manual_seed(2)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16),
        "latent_channels": 4,
        "norm_num_groups": 4,
        **({} if kind is AutoencoderKLFlux2 else {"scaling_factor": 0.5}),
    }
    return kind(**{**config, **overrides}).eval()


def tiny_latent_pipeline(coder: type = VQModel, **overrides: Any) -> LDMPipeline:
    """Latents of 3 channels, 8 by 8, of colour images of 16 by 16."""
    return LDMPipeline(
        vqvae=tiny_autoencoder(coder, **{"latent_channels": 3, **overrides}),
        unet=tiny_unet(in_channels=3, out_channels=3),
        scheduler=DDIMScheduler(clip_sample=False),
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's, which spells: its words are letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{each}</w>" for each in letters)]
    return CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=77)


def tiny_text_encoder(kind: type = CLIPTextModel, **overrides: Any) -> Any:
    """Two layers of 32 channels, for the words of :func:`tiny_tokenizer`."""
    config: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "projection_dim": 32,
    }
    torch.manual_seed(1)
    return kind(CLIPTextConfig(**{**config, **overrides})).eval()


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


def tiny_t5(width: int = 32) -> tuple[T5EncoderModel, T5Tokenizer]:
    """Its words are letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<pad>", "</s>", "<unk>", "\u2581", *(f"\u2581{each}" for each in letters), *letters]
    vocabulary = [(word, -float(i > 2)) for i, word in enumerate(words)]
    config = T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=37, num_layers=1, num_heads=4, pad_token_id=0
    )
    torch.manual_seed(1)
    return T5EncoderModel(config).eval(), T5Tokenizer(vocab=vocabulary, extra_ids=0)


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


def tiny_qwen() -> tuple[Qwen3ForCausalLM, Qwen2TokenizerFast]:
    """As deep as the pipeline of FLUX.2 klein reads it, 8 channels wide; its words are letters."""
    words = ["<|endoftext|>", "\u0120", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = Qwen2TokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.chat_template = "{% for each in messages %}{{ each['content'] }}{% endfor %}"
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=27,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    torch.manual_seed(1)
    return Qwen3ForCausalLM(config).eval(), tokenizer


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
