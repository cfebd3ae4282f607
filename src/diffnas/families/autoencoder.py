"""Autoencoders: some pipelines denoise latents, from which a decoder makes the pixels.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752). A latent is what the encoder gives (of a
distribution, its mode), shifted and scaled as the autoencoder's config says; or in squares, whose
pixels are channels, normalised by the means and variances that the autoencoder keeps (FLUX.2).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.measure.cost import call_cost
from diffnas.measure.meta import to_meta

COMPONENTS = ("vae", "vqvae")
"""What diffusers' pipelines call it."""

CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderTiny", "VQModel")
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
    return int(config.get("vq_embed_dim") or config.latent_channels) * _side(autoencoder) ** 2


def shrinking(autoencoder: Any) -> int:
    """Pixels a latent pixel stands for, along each side."""
    return int(2 ** (len(autoencoder.config.block_out_channels) - 1)) * _side(autoencoder)


def plain_shape(autoencoder: Any, sample_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Of what its decoder takes, where latents are (c, h, w)."""
    side = _side(autoencoder)
    channels, height, width = sample_shape
    return channels // side**2, side * height, side * width


def coding_macs(autoencoder: Any, sample_shape: tuple[int, int, int]) -> tuple[int, int]:
    """MACs of encoding one image and of decoding one latent (c, h, w)."""
    _, height, width = sample_shape
    factor = shrinking(autoencoder)
    size = (autoencoder.config.in_channels, factor * height, factor * width)
    sizes = (size, plain_shape(autoencoder, sample_shape))
    image, latent = (torch.zeros(1, *each, device="meta") for each in sizes)
    meta: Any = to_meta(autoencoder)
    return call_cost(meta.encoder, (image,)).macs, call_cost(meta.decoder, (latent,)).macs


@torch.no_grad()
def encode(autoencoder: Any, images: Tensor) -> Tensor:
    """Latents (B, c, h, w) of images (B, C, H, W) in [-1, 1]."""
    made = []
    for part in images.to(autoencoder.dtype).split(max(1, PIXELS // images[0, 0].numel())):
        given = autoencoder.encode(part)
        made.append(given.latents if hasattr(given, "latents") else given.latent_dist.mode())
    shift, scale = _normalising(autoencoder)
    return ((F.pixel_unshuffle(torch.cat(made), _side(autoencoder)) - shift) * scale).float()


@torch.no_grad()
def decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Images (B, C, H, W), nearly in [-1, 1], of latents (B, c, h, w)."""
    shift, scale = _normalising(autoencoder)
    plain = F.pixel_shuffle(latents / scale + shift, _side(autoencoder))
    pixels = latents[0, 0].numel() * shrinking(autoencoder) ** 2
    parts = plain.to(autoencoder.dtype).split(max(1, PIXELS // pixels))
    return torch.cat([autoencoder.decode(part).sample for part in parts]).float()


def _side(autoencoder: Any) -> int:
    """Of the squares that are one pixel to the denoiser."""
    return int(autoencoder.config.get("patch_size", (1, 1))[0])


def _normalising(autoencoder: Any) -> tuple[Any, Any]:
    """What is taken off latents, and what they are then multiplied with; of all or by channel."""
    config = autoencoder.config
    if (norm := getattr(autoencoder, "bn", None)) is None:
        return float(config.get("shift_factor") or 0.0), config.scaling_factor
    mean, variance = (each.view(1, -1, 1, 1) for each in (norm.running_mean, norm.running_var))
    return mean, (variance + norm.eps).rsqrt()
