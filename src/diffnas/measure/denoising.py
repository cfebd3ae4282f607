"""The denoising loss on fixed held-out images: it tells smaller differences than samples do."""

import numpy as np
import torch

from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.families.batches import batch_of
from diffnas.families.noise import even_timesteps
from diffnas.measure.references import spread
from diffnas.rng import generator

DRAWS = 2048
"""Pairs of image and noise level; every held-out image is in as many of them."""

PART = 64
"""Draws held in memory at once."""


@torch.no_grad()
def denoising_loss(pipeline: Teacher, data: Data, batch_size: int) -> float:
    """Mean squared error to the training target on fixed held-out images, noise and timesteps.

    Raises:
        UserError: the denoiser takes classes and the data have none.
    """
    picks = spread(data.held_out, DRAWS)
    picks = np.tile(picks, DRAWS // len(picks))
    # Images are often sorted by class: shuffled, each class meets all noise levels.
    fixed = generator(0, "denoising loss", 0)
    timesteps = even_timesteps(pipeline.pipeline.scheduler.config, len(picks))
    timesteps = timesteps[torch.randperm(len(picks), generator=fixed)]
    total, count = 0.0, 0
    for start in range(0, len(picks), PART):
        rows = picks[start : start + PART]
        noisy = batch_of(pipeline, data, rows, fixed, timesteps[start : start + PART])
        for first in range(0, len(rows), batch_size):
            part = noisy.rows(slice(first, first + batch_size))
            predicted = pipeline.family.prediction(pipeline.denoiser(**part.inputs), part.size)
            total += part.error(predicted, "sum").item()
        count += noisy.target.numel()
    return total / count
