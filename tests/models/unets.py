"""UNets alone, of pixels."""

from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

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
