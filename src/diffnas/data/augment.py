"""Augmentations of a batch: float32 images (B, C, H, W) in [-1, 1] in, the same out.

All randomness comes from the CPU generator handed in, so that a step's batch is a function of
its seed alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Strengths for 'digits', as standard deviations. Chosen on data alone: the Fréchet distance from
# augmented seen digits to held-out ones is 0.27 with these, that of plain seen digits 0.19
# (benchmarks/teacher_report.py).
ROTATION = 5.0  # degrees
SCALE = 0.05  # relative
SHIFT = 0.01  # of the image's side
ELASTIC = 0.01  # of the image's side, on a 3 by 3 grid of control points
KEPT = 0.25  # share of images left as they are


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def digits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small rotation, anisotropic scaling, shift and elastic change, in one resampling.

    Bicubic, because bilinear resampling visibly blurs images as small as 8 by 8.
    """
    count = len(images)

    def normal(*shape: int) -> Tensor:
        # Cut at two deviations: a rare wild image is not a digit any more.
        return torch.randn(*shape, generator=generator).clamp(-2, 2)

    angle = normal(count) * math.radians(ROTATION)
    stretch = torch.exp(normal(count, 2) * SCALE)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, -sin, sin, cos], dim=1).view(count, 2, 2)
    # The grid spans 2 units a side, hence the factor 2 on everything given as a share of it.
    theta = torch.cat([turn * stretch[:, :, None], normal(count, 2, 1) * (2 * SHIFT)], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    bend = normal(count, 2, 3, 3) * (2 * ELASTIC)
    bend = F.interpolate(bend, images.shape[-2:], mode="bicubic", align_corners=True)
    grid = grid + bend.permute(0, 2, 3, 1)
    # Outside lies background, which grid_sample takes for 0: so background is moved to 0.
    moved = F.grid_sample(images + 1, grid, mode="bicubic", align_corners=False) - 1
    stays = torch.rand(count, 1, 1, 1, generator=generator) < KEPT
    return torch.where(stays, images, moved.clamp(-1, 1))


AUGMENTATIONS = {
    "none": lambda images, generator: images,
    "flip": flip,
    "digits": digits,
}
