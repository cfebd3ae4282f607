"""What a block's subnet does to the denoiser's output: the score that selection goes by.

Block losses rank the subnets of one block, but do not tell what the whole loses by them. So the
subnets near a block's front of loss and cost take its place in the teacher, one at a time, and the
output is compared with the teacher's own.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from torch import Tensor

from diffnas.architecture import SUMS, BlockScores, BlockSpace, Choices, Floats, Scores, subnet_at
from diffnas.artifacts import current_tensors, save_tensors
from diffnas.checkpoint import within
from diffnas.data import Data
from diffnas.parallel import workers_for
from diffnas.patched_teacher import PatchedTeacher
from diffnas.progress import OneOfThreads, Progress
from diffnas.scoring import noisy, validation_parts
from diffnas.settings import ScoreSettings
from diffnas.supernet import Supernet


def output_errors(
    supernet: Supernet,
    data: Data,
    table: Scores,
    settings: ScoreSettings,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> Scores:
    """The table's subnets near the fronts, each with the error that it makes at the output.

    E_k(u) = MSE(teacher with subnet u in the place of block k, teacher). What a narrower trunk
    leaves out of the block's outputs is the teacher's own. ``settings.output_images`` images, noisy
    as those of the block losses.
    With a ``checkpoint`` path the work goes on where an earlier one, with the same fingerprint,
    stopped.
    """
    progress = progress or Progress()
    blocks = supernet.space.blocks
    chosen = {each.name: near_fronts(each, table.blocks[each.name], settings) for each in blocks}
    assert settings.batch_size is not None
    parts = validation_parts(supernet, data, settings, seed)
    ends = np.cumsum([len(part.rows) for part in parts])
    enough = int(np.searchsorted(ends, settings.output_images)) + 1
    batches = [noisy(supernet, data, part) for part in parts[:enough]]
    macs = supernet.space.teacher.macs * settings.batch_size
    workers = workers_for(supernet.teacher.device, macs)
    found = _Found()
    kept = None if checkpoint is None else current_tensors(checkpoint, fingerprint, progress.say)
    if kept is not None:
        found.restore(kept)
    before, began = found.seconds, time.monotonic()
    done = sum(len(chosen[name]) for name in found.errors)
    progress.start("output errors", sum(len(each) for each in chosen.values()), done)
    patched = PatchedTeacher(supernet, workers)
    for block in blocks:
        if block.name in found.errors:
            continue
        shown = OneOfThreads(progress, done, 1)
        found.errors[block.name] = patched.errors(block, chosen[block.name], batches, shown)
        done += len(chosen[block.name])
        found.seconds = before + time.monotonic() - began
        if checkpoint is not None:
            save_tensors(checkpoint, found.state(), fingerprint)
    progress.stop()
    tables = {name: BlockScores(chosen[name], found.errors[name]) for name in chosen}
    return Scores(supernet.space, tables, found.seconds)


def near_fronts(block: BlockSpace, table: BlockScores, settings: ScoreSettings) -> Choices:
    """At most ``settings.candidates`` rows: the teacher's options, the cheapest, front by front.

    A front: no other subnet has both less loss and less cost, in MACs or in parameters. Of a front
    that is too large for what is left, evenly many along its cost.
    """
    costs = [block.cost_of(subnet_at(block, choice)) for choice in table.choices]
    macs, params = (np.array([getattr(cost, key) for cost in costs]) for key in SUMS)
    depth = np.minimum(_front_of(macs, table.losses), _front_of(params, table.losses))
    rows = {0, int(macs.argmin()), int(params.argmin())}
    for front in range(int(depth.max()) + 1):
        more = np.setdiff1d(np.flatnonzero(depth == front), list(rows))
        more = more[np.argsort(macs[more], kind="stable")]
        room = max(0, settings.candidates - len(rows))
        if len(more) > room:
            more = more[np.linspace(0, len(more) - 1, room).round().astype(int)]
        rows |= {int(row) for row in more}
    return table.choices[sorted(rows)]


def _front_of(costs: npt.NDArray[Any], losses: Floats) -> npt.NDArray[np.int64]:
    """Which front each point is on: 0 for those that none dominates, 1 without these, and so on."""
    _, front = NonDominatedSorting().do(np.column_stack([costs, losses]), return_rank=True)
    return np.asarray(front)


@dataclass
class _Found:
    """The blocks that are done, and the seconds."""

    errors: dict[str, Floats] = field(default_factory=dict)
    seconds: float = 0.0

    def state(self) -> dict[str, Tensor]:
        """As named tensors."""
        errors = {f"errors/{name}": torch.from_numpy(each) for name, each in self.errors.items()}
        return {**errors, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        self.errors = {name: each.numpy() for name, each in within(tensors, "errors/").items()}
        self.seconds = float(tensors["seconds"])
