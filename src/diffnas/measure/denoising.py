"""The denoising loss on fixed held-out images: it tells smaller differences than samples do."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.families.noise import even_timesteps
from diffnas.measure.references import spread
from diffnas.rng import generator

DRAWS = 2048
"""Pairs of image and noise level; every held-out image is in as many of them."""

PART = 64
"""Draws held in memory at once."""


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
    device, total, count = pipeline.device, 0.0, 0
    for start in range(0, len(picks), PART):
        rows = picks[start : start + PART]
        labels = None if data.labels is None else torch.from_numpy(data.labels[rows])
        noisy = pipeline.family.training_batch(
            pipeline.pipeline,
            pipeline.clean(data, rows).cpu(),
            labels,
            fixed,
            timesteps[start : start + PART],
        )
        predicted = torch.cat(
            [
                _predicted(pipeline, noisy.inputs, slice(first, first + batch_size), device)
                for first in range(0, len(rows), batch_size)
            ]
        )
        total += F.mse_loss(predicted, noisy.target, reduction="sum").double().item()
        count += noisy.target.numel()
    return total / count


@torch.no_grad()
def _predicted(
    pipeline: Teacher, inputs: Mapping[str, Tensor], part: slice, device: torch.device
) -> Tensor:
    taken = {key: value[part].to(device) for key, value in inputs.items()}
    return pipeline.family.prediction(pipeline.denoiser(**taken)).cpu()
