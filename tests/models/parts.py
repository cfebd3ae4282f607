"""What stands around a denoiser: autoencoders, text encoders and their tokenizers."""

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


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
