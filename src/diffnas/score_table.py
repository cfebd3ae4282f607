"""The score table of a whole denoiser: made from a supernet, written, read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.architecture import BlockScores, Scores, Space, subnet_at
from diffnas.blocks import Call, capture
from diffnas.checkpoint import save_state
from diffnas.data import Data, to_float
from diffnas.families.noise import even_timesteps
from diffnas.losses import BlockLoss
from diffnas.parallel import thread_map, twin, workers_for
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.scores import plain_options, score_block
from diffnas.settings import ScoreSettings
from diffnas.supernet import BlockSupernet, Supernet


def score(
    supernet: Supernet,
    data: Data,
    settings: ScoreSettings,
    kind: BlockLoss,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Block losses of every subnet of every block over a fixed validation batch.

    The batch: ``settings.images`` seen images without augmentation (held-out ones are for judging
    only), timesteps spread evenly over the schedule. It is evaluated in parts of
    ``settings.batch_size``; a loss is the mean over parts, whatever the number of threads.
    """
    progress = progress or Progress()
    parts = [
        _calls(supernet, data, picks, times, generator(seed, "score noise", part))
        for part, (picks, times) in enumerate(_parts(supernet, data, settings, seed))
    ]
    device = next(supernet.teacher.denoiser.parameters()).device
    macs = supernet.space.teacher.macs * settings.batch_size
    workers = min(workers_for(device, macs), len(parts))
    progress.start("scores", sum(block.size for block in supernet.space.blocks))
    tables, done = {}, 0
    for block in supernet.space.blocks:
        shown = _Offset(progress, done)
        calls = [part[block.name] for part in parts]
        found = _in_parts(supernet.blocks[block.name], calls, kind, workers, shown)
        losses = np.mean([table.losses for table in found], axis=0)
        tables[block.name] = replace(found[0], losses=losses)
        done += block.size
        progress.update(done)
    progress.stop()
    return Scores(supernet.space, tables)


def _in_parts(
    block: BlockSupernet, calls: list[Call], kind: BlockLoss, workers: int, progress: Progress
) -> list[BlockScores]:
    """A block's scores on each part, in threads on twins: a block runs one subnet at a time."""
    plain = plain_options(block)
    shown = [progress, *[None] * (len(calls) - 1)]
    work = list(zip([twin(block) for _ in calls], calls, shown, strict=True))
    return thread_map(
        lambda each: score_block(each[0], [each[1]], kind, each[2], plain), work, workers
    )


def save(scores: Scores, path: Path, fingerprint: str, seconds: float) -> None:
    """Write the table as safetensors: ``<block>.choices``, ``.losses``, ``.macs``, ``.params``."""
    tensors: dict[str, Tensor] = {}
    for block in scores.space.blocks:
        table = scores.blocks[block.name]
        costs = [block.cost_of(subnet_at(block, choice)) for choice in table.choices]
        tensors |= {
            f"{block.name}.choices": torch.from_numpy(table.choices),
            f"{block.name}.losses": torch.from_numpy(table.losses),
            f"{block.name}.macs": torch.tensor([cost.macs for cost in costs]),
            f"{block.name}.params": torch.tensor([cost.params for cost in costs]),
        }
    meta = {"format": "1", "fingerprint": fingerprint, "seconds": f"{seconds:.1f}"}
    save_state(path, tensors, meta)


def from_tensors(tensors: Mapping[str, Tensor], space: Space) -> Scores:
    """The table that :func:`save` wrote."""
    return Scores(
        space,
        {
            block.name: BlockScores(
                tensors[f"{block.name}.choices"].numpy(), tensors[f"{block.name}.losses"].numpy()
            )
            for block in space.blocks
        },
    )


def _parts(
    supernet: Supernet, data: Data, settings: ScoreSettings, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Image indices and timesteps of each part; every part spans the whole schedule."""
    random = generator(seed, "score images", 0)
    count = min(settings.images, len(data.seen))
    picks = torch.from_numpy(data.seen)[torch.randperm(len(data.seen), generator=random)[:count]]
    times = even_timesteps(supernet.teacher.pipeline.scheduler.config, count)
    parts = -(-count // settings.batch_size)
    return [(picks[part::parts], times[part::parts]) for part in range(parts)]


def _calls(
    supernet: Supernet, data: Data, picks: Tensor, times: Tensor, random: torch.Generator
) -> dict[str, Call]:
    teacher = supernet.teacher
    device = next(teacher.denoiser.parameters()).device
    rows = picks.numpy()
    images = to_float(data.images[rows]).to(device)
    labels = None if data.labels is None else torch.from_numpy(data.labels[rows]).to(device)
    batch = teacher.family.training_batch(teacher.pipeline, images, labels, random, times)
    return capture(teacher.denoiser, list(supernet.blocks), batch.inputs)[1]


class _Offset(Progress):
    """Shows a block's subnets as part of all blocks'."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.progress = progress
        self.done = done

    def update(self, done: int, **figures: float) -> None:
        """Count on from the blocks before."""
        self.progress.update(self.done + done, **figures)
