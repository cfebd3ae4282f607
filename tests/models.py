"""Small pipelines of the real classes, made on the spot."""

from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel


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
