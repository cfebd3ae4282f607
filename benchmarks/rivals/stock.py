"""Smaller models of the teacher's own form: narrower everywhere, or with fewer layers."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn

from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.student.stock import as_model
from rivals import OutOfReachError, Start, folded, macs_of


def narrow(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """The widest model with every level at the same share of its width, with fresh weights.

    Widths are whole norm groups and heads, so its cost may lie well below the budget.
    """
    config = config_of(teacher)
    widths = config["block_out_channels"]
    unit = math.lcm(config["norm_num_groups"], config["attention_head_dim"] or 1)
    limit = macs * macs_of(teacher, teacher.denoiser)
    best: tuple[int, nn.Module] | None = None
    shares = [percent / 100 for percent in range(99, 0, -1)]
    rounded = [tuple(max(unit, round(w * share / unit) * unit) for w in widths) for share in shares]
    for narrower in dict.fromkeys(rounded):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = UNet2DModel.from_config({**config, "block_out_channels": narrower})
            model = folded(made)
        found = macs_of(teacher, model)
        if found <= limit and (best is None or found > best[0]):
            best = found, model
    if best is None:
        raise OutOfReachError(f"no narrower model has {macs} of the MACs")
    return Start(on_device(teacher, best[1]))


LAYERS = {
    r"down_blocks\.\d+\.(resnets|attentions)\.1": {"kind": "skip"},
    # With the skip that was joined to its input.
    r"up_blocks\.\d+\.resnets\.1": {"kind": "drop"},
    r"up_blocks\.\d+\.attentions\.1": {"kind": "skip"},
}
"""Layers that BK-SDM's "Base" leaves out, of two a block, and how."""

MIDDLE = {r"mid_block\.(resnets|attentions)\.\d": {"kind": "skip"}}
"""What "Small" leaves out besides."""


def shallow(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """Fewer layers by a fixed recipe, after BK-SDM (Kim et al. 2023, arXiv 2305.15798).

    "Base" keeps the first layer of every down block, the first and the last of every up block;
    "Small" leaves the mid block out as well. The larger one within the budget; Small where neither
    is, which then costs more. Weights are the teacher's. Blocks give what the teacher's do, so that
    they can be compared. Needs ``layers_per_block`` = 2.
    """
    config = config_of(teacher)
    if config["layers_per_block"] != 2:
        raise OutOfReachError("the depth recipe is for two layers a block")
    for recipe in (LAYERS, LAYERS | MIDDLE):
        edits = {
            path: edit
            for path, _ in teacher.denoiser.named_modules()
            for pattern, edit in recipe.items()
            if re.fullmatch(pattern, path)
        }
        weights = {
            name: each
            for name, each in teacher.denoiser.state_dict().items()
            if not any(name.startswith(f"{path}.") for path in edits)
        }
        model: nn.Module = as_model(config, edits, weights, UNet2DModel, edited=True)
        if macs_of(teacher, folded(model)) <= macs * macs_of(teacher, teacher.denoiser):
            break
    return Start(on_device(teacher, model))


def on_device(teacher: Teacher, model: nn.Module) -> nn.Module:
    """Where the teacher is, in eval mode."""
    return model.to(teacher.device).eval()


def config_of(teacher: Teacher) -> dict[str, Any]:
    """What its denoiser is made from; diffusers' own notes in it would undo changes to defaults."""
    config: Any = teacher.denoiser.config
    return {key: entry for key, entry in config.items() if not key.startswith("_")}
