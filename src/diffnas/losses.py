"""The block loss, and the dynamic joint loss of retraining."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.blocks import Call, tensors

BlockLoss = Literal["residual", "output", "plain"]
Schedule = Literal["linear", "cosine", "step", "static", "none"]


@dataclass(frozen=True)
class BlockTarget:
    """What one block should give: each distinct output once, with the scale of its errors.

    ``indices``: which of the flattened outputs; ``values``: those of the teacher; ``scales``: what
    their squared errors are divided by (0-dim tensors).
    """

    indices: tuple[int, ...]
    values: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]


def block_target(call: Call, kind: BlockLoss) -> BlockTarget:
    """The target of a captured teacher block.

    'residual' divides by Var(y - x) over all axes, where x is the stream that y carries on (0 where
    none has its shape, or y is x): in a residual network most of y is x passed through, and Var(y)
    would make leaving a layer out look free. 'output' divides by Var(y); 'plain' by 1.
    An output returned twice (a UNet down block's last tensor is also a skip) counts once.
    """
    outputs = list(tensors(call.output))
    first = {id(tensor): index for index, tensor in reversed(list(enumerate(outputs)))}
    indices = tuple(sorted(first.values()))
    values = tuple(outputs[index] for index in indices)
    return BlockTarget(indices, values, tuple(_scale(value, call, kind) for value in values))


def _scale(value: Tensor, call: Call, kind: BlockLoss) -> Tensor:
    if kind == "plain":
        return torch.ones((), device=value.device)
    changes = [value.float()]
    if kind == "residual":
        # Of several streams of its shape, the one that it is nearest to.
        alike = [each for each in call.streams if each.shape == value.shape]
        changes = [value.float() - each.float() for each in alike] or changes
    scale = torch.stack([change.var(correction=0) for change in changes]).min()
    # What is passed on unchanged, by a layer that was left out for example, has no scale of its
    # own; a student that is given something else than its teacher passes on what that is.
    return torch.where(scale > 0, scale, value.float().var(correction=0)).clamp_min(1e-12)


def block_loss(output: Any, target: BlockTarget) -> Tensor:
    """l_k = mean over distinct outputs of MSE(y_hat, y) / scale(y), a 0-dim tensor."""
    given = list(tensors(output))
    terms = [
        F.mse_loss(given[index].float(), value.float()) / scale
        for index, value, scale in zip(target.indices, target.values, target.scales, strict=True)
    ]
    return torch.stack(terms).mean()


def beta(schedule: Schedule, progress: float) -> float:
    """Weight of the prediction loss at ``progress`` in [0, 1] of retraining.

    Rises from 0 to 1: 'linear', 'cosine' or a 'step' half-way; 'static' is 0.5 throughout and
    'none' leaves the block losses out.
    """
    if schedule == "linear":
        return progress
    if schedule == "cosine":
        return (1 - math.cos(math.pi * progress)) / 2
    if schedule == "step":
        return float(progress >= 0.5)
    return 0.5 if schedule == "static" else 1.0


def joint_loss(block_losses: Sequence[Tensor], prediction_loss: Tensor, weight: float) -> Tensor:
    """L = (1 - beta) * sum_k l_k + beta * L_predict, with ``weight`` = beta.

    Without block losses it is L_predict.
    """
    if not block_losses:
        return prediction_loss
    return (1 - weight) * torch.stack(tuple(block_losses)).sum() + weight * prediction_loss
