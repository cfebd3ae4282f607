"""What goes with a denoiser of shapes: an autoencoder and CLIP, both small and truly trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from shapes.drawing import SIDE, WORDS, drawn

BATCH = 64
KL_WEIGHT = 1e-5  # enough to keep latents near a unit ball, without blurring
TEXT = 64
"""Width of CLIP's text states and of the pooled text."""


def drawn_batch(rng: np.random.Generator) -> tuple[Tensor, list[str]]:
    """Images (BATCH, 3, SIDE, SIDE) in [-1, 1] and their captions, all different."""
    chosen = [WORDS[index] for index in rng.permutation(len(WORDS))[:BATCH]]
    images = np.stack([drawn(words, rng) for words in chosen])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, [words.caption for words in chosen]


def trained(model: nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float) -> None:
    """AdamW on a loss of the step's number, with a cosine to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(steps):
        found = loss(step)
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 250 == 0:
            print(f"{type(model).__name__} {step + 1} of {steps}: loss {found.item():.4f}")
    model.eval().requires_grad_(False)


def autoencoder(steps: int) -> AutoencoderKL:
    """Latents of 4 channels at half the side, of unit deviation after scaling."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    rng = np.random.default_rng(1)
    random = torch.Generator().manual_seed(1)

    def loss(_: int) -> Tensor:
        images = drawn_batch(rng)[0]
        posterior = model.encode(images).latent_dist
        made = model.decode(posterior.sample(generator=random)).sample
        return F.l1_loss(made, images) + KL_WEIGHT * posterior.kl().mean()

    trained(model, loss, steps, 2e-3)
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(drawn_batch(rng)[0]).latent_dist.mode() for _ in range(8)]
        )
    model.register_to_config(scaling_factor=1 / latents.std().item())
    return model


def tokenizer() -> CLIPTokenizer:
    """CLIP's, which knows every word of a caption and spells all others."""
    words = sorted({word for each in WORDS for word in each.caption.split() if len(word) > 1})
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{each}</w>" for each in letters)]
    merges: list[Any] = []
    for word in words:
        begun = word[0]
        for part in [*word[1:-1], f"{word[-1]}</w>"]:
            merges.append((begun, part))
            begun += part
            known.append(begun)
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(known))}
    return CLIPTokenizer(vocabulary, list(dict.fromkeys(merges)), model_max_length=77)


def clip(words: CLIPTokenizer, steps: int) -> CLIPModel:
    """Trained to tell which of the batch's captions, all different, belongs to an image."""
    torch.manual_seed(0)
    same: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT,
        intermediate_size=4 * TEXT,
        projection_dim=TEXT,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **same,
    )
    vision = CLIPVisionConfig(
        hidden_size=TEXT,
        intermediate_size=4 * TEXT,
        projection_dim=TEXT,
        image_size=SIDE,
        patch_size=4,
        **same,
    )
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT))
    rng = np.random.default_rng(2)

    def loss(_: int) -> Tensor:
        images, captions = drawn_batch(rng)
        told = words(captions, padding="longest", return_tensors="pt")
        found: Tensor = model(pixel_values=images, return_loss=True, **told).loss
        return found

    trained(model, loss, steps, 1e-3)
    return model


def kept(folder: Path, make: Callable[[], Any]) -> Path:
    """The folder, in which lies what is made unless it is there."""
    if not folder.exists():
        made, unfinished = make(), folder.with_name(f"{folder.name}.unfinished")
        made.save_pretrained(unfinished)
        unfinished.rename(folder)
    return folder
