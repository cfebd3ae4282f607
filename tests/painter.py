"""A teacher of texts whose samples are known: a caption is the value of all pixels."""

from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from diffnas.families import Teacher, unet2d
from diffnas.families.conditions import Condition

NOTHING = -0.2
"""Painted where it is told nothing."""


class Painter(nn.Module):
    """Predicts the clean image, from what it is told alone, and a variance."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2, 8, 8), requires_grad=False)
        self.config: dict[str, Any] = {}

    def forward(self, sample: Tensor, timestep: Tensor, value: Tensor) -> Tensor:
        return self.weight * value.view(-1, 1, 1, 1)


class PainterPipeline:
    """Guided, unless it is asked for something else."""

    def __init__(self) -> None:
        self.scheduler = DDIMScheduler(prediction_type="sample", clip_sample=False)
        self.components: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    def __call__(self, guidance_scale: float = 5.0) -> None: ...


def captions(_: Any, texts: list[str]) -> Condition:
    return {"value": torch.tensor([float(text) for text in texts])}


FAMILY = replace(
    unet2d.FAMILY,
    sample_shape=lambda _: (1, 8, 8),
    class_count=lambda _: None,
    example_condition=lambda _, size, device: {"value": torch.zeros(size, device=device)},
    prediction=lambda output, _: output,
    captions=captions,
    nothing=lambda _: {"value": torch.tensor([NOTHING])},
)


def painter() -> Teacher:
    return Teacher("painter", PainterPipeline(), Painter(), FAMILY)


def level(value: float) -> int:
    """The byte of a pixel of that value."""
    return round((value + 1) * 127.5)
