"""Teachers of random weights, for what only depends on shapes: latency, memory, overhead."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.families.unet2d import FAMILY


def cifar_unet(head_size: int | None = None) -> UNet2DModel:
    """The architecture of google/ddpm-cifar10-32, random weights."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=32,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=head_size,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


def small_unet(head_size: int | None = None) -> UNet2DModel:
    """For `--quick`: the same form, eight times narrower."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=head_size and 16,
        norm_num_groups=8,
    )


def as_teacher(unet: UNet2DModel, device: str = "cpu") -> Teacher:
    """A pipeline around a UNet."""
    unet = unet.eval().requires_grad_(False).to(device)
    return Teacher("random", DDPMPipeline(unet=unet, scheduler=DDPMScheduler()), unet, FAMILY)


def noise(teacher: Teacher, count: int = 256) -> Data:
    """Images of the teacher's shape, of no meaning."""
    shape = (count, *teacher.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Data("noise", images, None, np.arange(count), np.arange(count), "none")
