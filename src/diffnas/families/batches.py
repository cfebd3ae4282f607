"""What a teacher and its students are trained and judged on: noisy images and what they show."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffnas.data import Data, batch, mirrored, of_one_shape, to_float
from diffnas.families import conditions
from diffnas.families.conditions import Condition
from diffnas.families.family import Batch
from diffnas.families.noise import add_noise, told_timesteps, train_timesteps
from diffnas.families.teacher import Teacher


def training_batch(
    teacher: Teacher,
    clean: Tensor,
    condition: Condition,
    random: torch.Generator,
    timesteps: Tensor | None = None,
) -> Batch:
    """Clean pixels in [-1, 1], or latents (B, C, H, W), made noisy, on the denoiser's device.

    ``timesteps``: integers (B,), uniform unless given; they and the noise are drawn on the CPU,
    so that devices get the same.
    """
    config, device = teacher.scheduler.config, teacher.device
    noise = torch.randn(clean.shape, generator=random)
    if timesteps is None:
        timesteps = torch.randint(train_timesteps(config), (len(clean),), generator=random)
    clean = clean.to(device)
    noisy, target = add_noise(config, clean, noise.to(device, clean.dtype), timesteps)
    given = {name: each.to(device) for name, each in condition.items()}
    told = told_timesteps(config, timesteps).to(device)
    inputs = teacher.family.inputs(teacher.denoiser, noisy, told, given)
    return Batch(inputs, target, teacher.family.shared, timesteps)


def random_batch(teacher: Teacher, data: Data, size: int, random: torch.Generator) -> Batch:
    """Seen images, augmented, at uniform timesteps, made noisy.

    Of a share of them the condition is left out, so that guidance stays possible. Where the data
    are in buckets, all are of one shape.
    """
    part = of_one_shape(data, random)
    drawn, rows, flipped = batch(part, size, random)
    clean = teacher.encode(drawn) if flipped is None else drawn
    condition = teacher.condition(part, rows)
    if data.condition_dropout and (nothing := teacher.nothing(data)) is not None:
        out = torch.rand(size, generator=random) < data.condition_dropout
        condition = conditions.replaced(condition, nothing, out)
    if data.buckets and teacher.family.sized is not None:
        condition = teacher.family.sized(condition, part.images.shape[2:])
    if teacher.inpaints:
        images = drawn if flipped is None else mirrored(part, rows, flipped)
        condition |= teacher.shown(images, [random] * size)
    return training_batch(teacher, clean, condition, random)


def batch_of(
    teacher: Teacher,
    data: Data,
    rows: npt.NDArray[np.integer[Any]],
    random: torch.Generator,
    timesteps: Tensor | None = None,
) -> Batch:
    """These images as they are, with all that they show, made noisy."""
    condition = teacher.condition(data, rows)
    if teacher.inpaints:
        condition |= teacher.shown(to_float(data.images[rows]), [random] * len(rows))
    return training_batch(teacher, teacher.clean(data, rows), condition, random, timesteps)
