"""The score table of a whole denoiser: made from a supernet, written, read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffnas.architecture import (
    BlockScores,
    BlockSpace,
    Scores,
    Space,
    space_from_json,
    space_to_json,
    subnet_at,
)
from diffnas.artifacts import check_format
from diffnas.blocks import Call, capture
from diffnas.checkpoint import load_state, save_state
from diffnas.data import Data, to_float
from diffnas.families.noise import even_timesteps
from diffnas.losses import BlockLoss
from diffnas.parallel import thread_map, twin, workers_for
from diffnas.progress import Progress
from diffnas.rng import generator
from diffnas.scores import Choices, plain_options, score_block
from diffnas.search import search
from diffnas.settings import ScoreSettings
from diffnas.supernet import BlockSupernet, Supernet

Floats = npt.NDArray[np.float64]


def score(
    supernet: Supernet,
    data: Data,
    settings: ScoreSettings,
    kind: BlockLoss,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Block losses of the subnets of every block over a fixed validation batch.

    Up to ``settings.enumerate`` subnets of a block, all; of more, those that an evolutionary
    search over the first parts of the batch looks at, ``settings.evaluations`` at most.

    The batch: ``settings.images`` seen images without augmentation (held-out ones are for judging
    only), timesteps spread evenly over the schedule. It is evaluated in parts of
    ``settings.batch_size``; a loss is the mean over parts, whatever the number of threads.
    """
    assert settings.batch_size is not None
    progress = progress or Progress()
    parts = _parts(supernet, data, settings, seed)
    device = next(supernet.teacher.denoiser.parameters()).device
    macs = supernet.space.teacher.macs * settings.batch_size
    workers = min(workers_for(device, macs), len(parts))
    blocks = supernet.space.blocks
    choices: dict[str, Choices] = {}
    losses: dict[str, list[Floats]] = {block.name: [] for block in blocks}
    searched = [block for block in blocks if block.size > settings.enumerate]
    size = sum(subnets_scored(block, settings) for block in blocks) * len(parts)
    done = 0
    progress.start("scores", size + len(searched) * settings.evaluations * workers)
    # As many parts at a time as there are threads: captured calls of all would fill the memory.
    for first in range(0, len(parts), workers):
        calls = [_calls(supernet, data, part) for part in parts[first : first + workers]]
        for block in blocks:
            own = [part.pop(block.name) for part in calls]
            losses_of = _losses(supernet.blocks[block.name], own, kind)
            if block.name not in choices:
                shown = _Offset(progress, done, len(own))
                choices[block.name] = _choices(block, losses_of, settings, seed, shown)
                done += settings.evaluations * len(own) if block in searched else 0
            shown = _Offset(progress, done, len(own))
            losses[block.name] += losses_of(choices[block.name], shown)
            done += subnets_scored(block, settings) * len(own)
            progress.update(done)
    progress.stop()
    tables = {
        name: BlockScores(choices[name], np.mean(found, axis=0)) for name, found in losses.items()
    }
    return Scores(supernet.space, tables)


def subnets_scored(block: BlockSpace, settings: ScoreSettings) -> int:
    """How many subnets of a block the table has, at most."""
    return block.size if block.size <= settings.enumerate else settings.evaluations


LossesOf = Callable[[Choices, Progress | None], list[Floats]]
"""A block's losses of some subnets on each of a few calls."""


def _choices(
    block: BlockSpace, losses_of: LossesOf, settings: ScoreSettings, seed: int, progress: Progress
) -> Choices:
    """The rows of a block's table: all its subnets, or those that a search looks at."""
    if block.size <= settings.enumerate:
        return block.choices()
    seen = 0

    def losses(choices: Choices) -> Floats:
        nonlocal seen
        seen += len(choices)
        found: Floats = np.mean(losses_of(choices, None), axis=0)
        progress.update(seen)
        return found

    def costs(choices: Choices) -> Floats:
        subnets = [subnet_at(block, choice) for choice in choices]
        return np.array([block.cost_of(subnet).macs for subnet in subnets], dtype=float)

    sizes = [len(slot.options) for slot in block.slots]
    return search(sizes, losses, costs, evaluations=settings.evaluations, seed=seed)


def _losses(block: BlockSupernet, calls: list[Call], kind: BlockLoss) -> LossesOf:
    """In threads on twins: a block runs one subnet at a time."""
    plain, twins = plain_options(block), [twin(block) for _ in calls]

    def losses_of(choices: Choices, progress: Progress | None) -> list[Floats]:
        shown = [progress, *[None] * (len(calls) - 1)]
        work = list(zip(twins, calls, shown, strict=True))
        return thread_map(
            lambda each: (
                score_block(
                    each[0], [each[1]], kind, progress=each[2], plain=plain, choices=choices
                ).losses
            ),
            work,
            len(calls),
        )

    return losses_of


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
    meta = {
        "format": "1",
        "fingerprint": fingerprint,
        "seconds": f"{seconds:.1f}",
        "space": json.dumps(space_to_json(scores.space)),
    }
    save_state(path, tensors, meta)


def read(path: Path) -> Scores | None:
    """The table in a file, with the space it was made for; None if there is no whole one.

    Raises:
        UserError: a newer DiffNAS wrote it.
    """
    tensors, meta = load_state(path) or ({}, {})
    check_format(path, meta)
    if "space" not in meta:
        return None
    return from_tensors(tensors, space_from_json(json.loads(meta["space"])))


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


@dataclass(frozen=True)
class _Part:
    """Some of the validation batch: image rows, timesteps, and where the noise comes from."""

    rows: npt.NDArray[np.int64]
    times: Tensor
    random: torch.Generator


def _parts(supernet: Supernet, data: Data, settings: ScoreSettings, seed: int) -> list[_Part]:
    """The validation batch cut so that every part spans the whole schedule."""
    random = generator(seed, "score images", 0)
    count = min(settings.images, len(data.seen))
    picks = data.seen[torch.randperm(len(data.seen), generator=random)[:count].numpy()]
    times = even_timesteps(supernet.teacher.pipeline.scheduler.config, count)
    assert settings.batch_size is not None
    number = -(-count // settings.batch_size)
    return [
        _Part(picks[part::number], times[part::number], generator(seed, "score noise", part))
        for part in range(number)
    ]


def _calls(supernet: Supernet, data: Data, part: _Part) -> dict[str, Call]:
    """The teacher's calls of all blocks on a part."""
    teacher = supernet.teacher
    device = next(teacher.denoiser.parameters()).device
    images = to_float(data.images[part.rows]).to(device)
    labels = None if data.labels is None else torch.from_numpy(data.labels[part.rows]).to(device)
    batch = teacher.family.training_batch(teacher.pipeline, images, labels, part.random, part.times)
    return capture(teacher.denoiser, list(supernet.blocks), batch.inputs)[1]


class _Offset(Progress):
    """Shows one of several equal threads as all of them, after what was done before."""

    def __init__(self, progress: Progress, done: int, threads: int) -> None:
        self.progress = progress
        self.done = done
        self.threads = threads

    def update(self, done: int, **figures: float) -> None:
        """Count on."""
        self.progress.update(self.done + self.threads * done, **figures)
