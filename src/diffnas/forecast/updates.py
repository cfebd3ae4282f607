"""What an optimizer's steps take beside passes: MACs, and seconds where these say too little."""

import math

import torch
from torch import nn

from diffnas.measure.latency import latency_ms
from diffnas.optimizer import Optimizer, matrices_of, muon_macs
from diffnas.parallel import single_threaded
from diffnas.settings import RetrainSettings

PROBE_BYTES = 2**30
"""Of what is timed, at most: a plan should not take the memory of the model."""

KEPT = 3
"""Tensors of a weight's size in a step of Muon: itself, its gradient and the mean of these."""

SHORT = 0.2
"""Seconds of a step that is worth the wait to time it."""


def update_macs(model: nn.Module, settings: RetrainSettings, share: float = 1.0) -> float:
    """MACs of an optimizer's step of a model narrowed to this share of its MACs; AdamW's are few.

    Muon's go with the third power of widths, where those of a call go with the second.
    """
    return 0.0 if settings.optimizer == "adamw" else muon_macs(model) * share**1.5


def update_seconds(
    model: nn.Module,
    settings: RetrainSettings,
    share: float,
    *,
    rate: float,
    device: torch.device,
    workers: int = 1,
) -> float:
    """Seconds of that step on a device whose passes do ``rate`` MACs a second.

    ``workers``: parts of a batch that are trained on side by side, a thread each; updates are
    then made by one of these threads. A step that should be short is timed, unless that takes too
    much memory: small matrices take longer than their MACs.
    """
    foretold = workers * update_macs(model, settings, share) / rate
    sizes = narrowed(model, share)
    needed = KEPT * sum(map(math.prod, sizes)) * torch.float32.itemsize
    if not 0 < foretold < SHORT or needed > PROBE_BYTES:
        return foretold
    matrices = [nn.Parameter(torch.ones(size, device=device)) for size in sizes]
    optimizer = Optimizer(matrices, 0.0, matrices=matrices)

    def step() -> None:
        for matrix in matrices:
            matrix.grad = torch.ones_like(matrix)
        optimizer.step(0.0, "plan")

    with single_threaded(workers > 1):
        return latency_ms({"step": step}, device=device, repeats=3, warmup=1)["step"] / 1e3


def narrowed(model: nn.Module, share: float) -> list[tuple[int, int]]:
    """Shapes of the matrices that Muon trains of a model narrowed to this share of its MACs."""
    width = math.sqrt(share)
    shapes = ((len(weight), weight.numel() // len(weight)) for weight in matrices_of(model))
    return [
        (max(1, round(rows * width)), max(1, round(columns * width))) for rows, columns in shapes
    ]
