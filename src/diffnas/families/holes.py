"""Holes in images, which models of inpainting are to fill: drawn at random.

One in four is the whole image, as in the training of Stable Diffusion's and of XL's inpainting
models (their model cards). The others are a few boxes of any form, which are a part of LaMa's masks
(Suvorov et al. 2021, arXiv 2109.07161); Stable Diffusion 2's was trained with such.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

WHOLE = 0.25
"""Share of images of which nothing is left."""

BOXES = 3
"""At most, and at least one."""

SIDES = (0.125, 0.625)
"""The least and the most of a box's sides, as shares of the image's; edges of it cut them."""


def masks(size: tuple[int, int], randoms: Sequence[torch.Generator]) -> Tensor:
    """Masks (B, 1, H, W) for images of ``size`` (H, W): 1 in the hole, else 0.

    ``randoms``: what the hole of each is drawn from, on the CPU; it may be the same for all.
    """
    return torch.stack([_mask(size, random) for random in randoms])[:, None]


def _mask(size: tuple[int, int], random: torch.Generator) -> Tensor:
    if torch.rand((), generator=random) < WHOLE:
        return torch.ones(size)
    mask, scale = torch.zeros(size), torch.tensor(size)
    for _ in range(int(torch.randint(BOXES, (), generator=random)) + 1):
        least, most = SIDES
        sides = least + (most - least) * torch.rand(2, generator=random)
        middle = torch.rand(2, generator=random)
        top, left = ((middle - sides / 2) * scale).floor().int().clamp(min=0).tolist()
        bottom, right = ((middle + sides / 2) * scale).ceil().int().tolist()
        mask[top:bottom, left:right] = 1
    return mask
