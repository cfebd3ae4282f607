"""What scripts share that retrain many architectures of one supernet: search and a short look."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from trained import Bench

from diffnas.budget import parse_budget
from diffnas.families import Batch
from diffnas.families.batches import batch_of
from diffnas.families.noise import even_timesteps
from diffnas.measure.references import spread
from diffnas.progress import Progress
from diffnas.retrain import retrain
from diffnas.rng import generator
from diffnas.stages import Job
from diffnas.trunk_width import space_for

IMAGES = 256


def search(on: Bench, macs: float, run: Path, progress: Progress) -> Job:
    """What the stages of a compression to that share of the MACs go by, in a run folder."""
    budget = parse_budget(macs=macs)
    settings, space, _ = space_for(on.settings, on.teacher.denoiser, on.teacher.family, budget)
    run.mkdir(parents=True, exist_ok=True)
    return Job(run, on.teacher, on.origin, on.data, space, settings, budget, progress)


def validation(on: Bench) -> Batch:
    """Seen images, each at a timestep of its own, which are spread evenly."""
    rows, random = spread(on.data.seen, IMAGES), generator(0, "rank", 0)
    times = even_timesteps(on.teacher.pipeline.scheduler.config, len(rows))
    times = times[torch.randperm(len(rows), generator=random)]  # images may be sorted by class
    return batch_of(on.teacher, on.data, rows, random, times)


def after_steps(on: Bench, student: nn.Module, part: Batch, steps: int) -> float:
    """The denoising loss over ``part`` after so short a retraining."""
    how = on.settings.retrain.model_copy(update={"steps": steps, "schedule": "none"})
    retrain(student, on.teacher, on.data, how, seed=on.settings.seed)
    with torch.no_grad():
        given = on.teacher.family.prediction(student(**part.inputs), part.size)
    return float(F.mse_loss(given, part.target))
