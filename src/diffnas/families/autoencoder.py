"""Autoencoders: some pipelines denoise latents, from which a decoder makes the pixels.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752). A latent is what the encoder gives (of a
distribution, its mode), shifted and scaled as the autoencoder's config says.
"""

from typing import Any

import torch
from torch import Tensor

from diffnas.measure.cost import call_cost, to_meta

COMPONENTS = ("vae", "vqvae")
"""What diffusers' pipelines call it."""

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
"""Those whose latents are understood."""

PIXELS = 2**21
"""Coded at once, for the memory's sake: 8 images of 512 by 512."""


def autoencoder_of(pipeline: Any) -> Any:
    """The pipeline's autoencoder; None if it denoises pixels."""
    found = (getattr(pipeline, name, None) for name in COMPONENTS)
    return next((each for each in found if each is not None), None)


def latent_channels(autoencoder: Any) -> int:
    """Channels of its latents; a codebook's vectors may be shorter than what they are made from."""
    config = autoencoder.config
    return int(config.get("vq_embed_dim") or config.latent_channels)


def shrinking(autoencoder: Any) -> int:
    """Pixels a latent pixel stands for, along each side."""
    return int(2 ** (len(autoencoder.config.block_out_channels) - 1))


def coding_macs(autoencoder: Any, sample_shape: tuple[int, int, int]) -> tuple[int, int]:
    """MACs of encoding one image and of decoding one latent (c, h, w)."""
    _, height, width = sample_shape
    factor = shrinking(autoencoder)
    size = (autoencoder.config.in_channels, factor * height, factor * width)
    image, latent = (torch.zeros(1, *each, device="meta") for each in (size, sample_shape))
    meta: Any = to_meta(autoencoder)
    return call_cost(meta.encoder, (image,)).macs, call_cost(meta.decoder, (latent,)).macs


@torch.no_grad()
def encode(autoencoder: Any, images: Tensor) -> Tensor:
    """Latents (B, c, h, w) of images (B, C, H, W) in [-1, 1]."""
    made = []
    for part in images.to(autoencoder.dtype).split(max(1, PIXELS // images[0, 0].numel())):
        given = autoencoder.encode(part)
        made.append(given.latents if hasattr(given, "latents") else given.latent_dist.mode())
    return ((torch.cat(made) - _shift(autoencoder)) * autoencoder.config.scaling_factor).float()


@torch.no_grad()
def decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Images (B, C, H, W), nearly in [-1, 1], of latents (B, c, h, w)."""
    plain = latents / autoencoder.config.scaling_factor + _shift(autoencoder)
    pixels = latents[0, 0].numel() * shrinking(autoencoder) ** 2
    parts = plain.to(autoencoder.dtype).split(max(1, PIXELS // pixels))
    return torch.cat([autoencoder.decode(part).sample for part in parts]).float()


def _shift(autoencoder: Any) -> float:
    return float(autoencoder.config.get("shift_factor") or 0.0)
