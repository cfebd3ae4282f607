"""The scores of all blocks' subnets, made from a trained supernet."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffnas.architecture import BlockScores, BlockSpace, Choices, Floats, Scores, subnet_at
from diffnas.artifacts import current_tensors, save_tensors
from diffnas.block_search import search
from diffnas.blocks import Call
from diffnas.checkpoint import within
from diffnas.data import Data
from diffnas.families import Batch
from diffnas.families.batches import batch_of
from diffnas.families.noise import even_timesteps
from diffnas.losses import BlockLoss
from diffnas.parallel import thread_map, twin, workers_for
from diffnas.progress import OneOfThreads, Progress
from diffnas.rng import generator
from diffnas.scores import plain_options, score_block
from diffnas.settings import ScoreSettings
from diffnas.supernet import BlockSupernet, Supernet


def score(
    supernet: Supernet,
    data: Data,
    settings: ScoreSettings,
    *,
    kind: BlockLoss = "residual",
    seed: int = 0,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress | None = None,
) -> Scores:
    """Block losses of the subnets of every block over a fixed validation batch.

    Up to ``settings.enumerate`` subnets of a block, all; of more, those that an evolutionary
    search over the first part of the batch looks at, ``settings.evaluations`` at most.

    The batch: ``settings.images`` seen images without augmentation (held-out ones are for judging
    only), timesteps spread evenly over the schedule. It is evaluated in parts of
    ``settings.batch_size``; a loss is the mean over parts. Nothing hangs on the number of threads.
    With a ``checkpoint`` path the work goes on where an earlier one, with the same fingerprint,
    stopped: after the last block of the last parts.
    """
    assert settings.batch_size is not None
    progress = progress or Progress()
    parts = validation_parts(supernet, data, settings, seed)
    device = supernet.teacher.device
    macs = supernet.space.teacher.macs * settings.batch_size
    workers = min(workers_for(device, macs), len(parts))
    blocks = supernet.space.blocks
    found = _Found()
    kept = None if checkpoint is None else current_tensors(checkpoint, fingerprint, progress.say)
    if kept is not None:
        found.restore(kept)
    before, began = found.seconds, time.monotonic()

    def searching(block: BlockSpace) -> int:
        """Evaluations that find the rows of a block's table, as the progress counts them."""
        return 0 if enumerated(block, settings) else settings.evaluations

    work = {block.name: subnets_scored(block, settings) for block in blocks}
    done = sum(len(found.losses[block.name]) * work[block.name] for block in blocks)
    done += sum(searching(block) for block in blocks if block.name in found.choices)
    total = len(parts) * sum(work.values()) + sum(searching(block) for block in blocks)
    progress.start("scores", total, done)

    def add(block: BlockSpace, calls: list[Call]) -> None:
        """Losses of a block's subnets on these calls, and before the first which subnets."""
        nonlocal done
        losses_of = _losses(supernet.blocks[block.name], kind, workers)
        if block.name not in found.choices:
            # On the first part alone: the others at hand are as many as there are threads.
            on_first = partial(_in_shares, losses_of, calls[0], workers)
            shown = OneOfThreads(progress, done, 1)
            found.choices[block.name] = _choices(block, on_first, settings, seed, shown)
            done += searching(block)
        shown, choices = OneOfThreads(progress, done, len(calls)), found.choices[block.name]
        found.losses[block.name] += losses_of([(call, choices) for call in calls], shown)
        done += work[block.name] * len(calls)

    # As many parts at a time as there are threads: captured calls of all would fill the memory.
    for first in range(0, len(parts), workers):
        ahead = range(first, min(first + workers, len(parts)))
        if all(len(found.losses[block.name]) >= ahead.stop for block in blocks):
            continue
        calls = [_calls(supernet, data, parts[part]) for part in ahead]
        for block in blocks:
            own = [call.pop(block.name) for call in calls]
            # Another number of threads may have ended amid these parts.
            own = own[max(0, len(found.losses[block.name]) - first) :]
            if not own:
                continue
            with supernet.awake([block.name], changed=False):
                add(block, own)
            progress.update(done)
            found.seconds = before + time.monotonic() - began
            if checkpoint is not None:
                save_tensors(checkpoint, found.state(), fingerprint)
    progress.stop()
    tables = {
        name: BlockScores(found.choices[name], np.mean(losses, axis=0))
        for name, losses in found.losses.items()
    }
    return Scores(supernet.space, tables, found.seconds)


@dataclass
class _Found:
    """What is scored so far: each block's rows, their losses on the parts done, and the seconds."""

    choices: dict[str, Choices] = field(default_factory=dict)
    losses: defaultdict[str, list[Floats]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0

    def state(self) -> dict[str, Tensor]:
        """As named tensors."""
        rows = {f"choices/{name}": torch.from_numpy(each) for name, each in self.choices.items()}
        losses = {
            f"losses/{name}": torch.from_numpy(np.stack(self.losses[name])) for name in self.choices
        }
        return {**rows, **losses, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for name, rows in within(tensors, "choices/").items():
            self.choices[name] = rows.numpy()
        for name, losses in within(tensors, "losses/").items():
            self.losses[name] = list(losses.numpy())
        self.seconds = float(tensors["seconds"])


def subnets_scored(block: BlockSpace, settings: ScoreSettings) -> int:
    """How many subnets of a block the table has, at most."""
    most = block.size if enumerated(block, settings) else settings.evaluations
    return min(block.size, most)


def enumerated(block: BlockSpace, settings: ScoreSettings) -> bool:
    """Whether all of a block's subnets are scored; a search would not know which there are."""
    return block.only is not None or block.size <= settings.enumerate


LossesOf = Callable[[list[tuple[Call, Choices]], Progress | None], list[Floats]]
"""A block's losses: of some subnets on a call, each such pair in a thread of its own."""


def _in_shares(losses_of: LossesOf, call: Call, workers: int, choices: Choices) -> Floats:
    """Losses on one call, of some of the subnets in each thread."""
    shares = np.array_split(choices, min(workers, len(choices)))
    return np.concatenate(losses_of([(call, share) for share in shares], None))


def _choices(
    block: BlockSpace,
    losses_of: Callable[[Choices], Floats],
    settings: ScoreSettings,
    seed: int,
    progress: Progress,
) -> Choices:
    """The rows of a block's table: all its subnets, or those that a search looks at."""
    if enumerated(block, settings):
        return block.choices()
    seen = 0

    def losses(choices: Choices) -> Floats:
        nonlocal seen
        seen += len(choices)
        found = losses_of(choices)
        progress.update(seen)
        return found

    def costs(choices: Choices) -> Floats:
        subnets = [subnet_at(block, choice) for choice in choices]
        return np.array([block.cost_of(subnet).macs for subnet in subnets], dtype=float)

    sizes = [len(slot.options) for slot in block.slots]
    return search(sizes, losses, costs, evaluations=settings.evaluations, seed=seed)


def _losses(block: BlockSupernet, kind: BlockLoss, workers: int) -> LossesOf:
    """In threads on twins: a block runs one subnet at a time."""
    plain, twins = plain_options(block), [twin(block) for _ in range(workers)]

    def losses_of(work: list[tuple[Call, Choices]], progress: Progress | None) -> list[Floats]:
        def losses(number: int) -> Floats:
            call, choices = work[number]
            shown = None if number else progress
            scored = score_block(
                twins[number], [call], kind, progress=shown, plain=plain, choices=choices
            )
            return scored.losses

        return thread_map(losses, range(len(work)), len(work))

    return losses_of


@dataclass(frozen=True)
class Part:
    """Some of the validation batch: image rows, timesteps, and where the noise comes from."""

    rows: npt.NDArray[np.int64]
    times: Tensor
    random: torch.Generator


def validation_parts(
    supernet: Supernet, data: Data, settings: ScoreSettings, seed: int
) -> list[Part]:
    """The validation batch cut so that every part spans the whole schedule."""
    random = generator(seed, "score images", 0)
    count = min(settings.images, len(data.seen))
    picks = data.seen[torch.randperm(len(data.seen), generator=random)[:count].numpy()]
    times = even_timesteps(supernet.teacher.pipeline.scheduler.config, count)
    assert settings.batch_size is not None
    number = -(-count // settings.batch_size)
    return [
        Part(picks[part::number], times[part::number], generator(seed, "score noise", part))
        for part in range(number)
    ]


def noisy(supernet: Supernet, data: Data, part: Part) -> Batch:
    """A part's images, made noisy. Draws from the part's generator, so once."""
    return batch_of(supernet.teacher, data, part.rows, part.random, part.times)


def _calls(supernet: Supernet, data: Data, part: Part) -> dict[str, Call]:
    """The teacher's calls of all blocks on a part."""
    return supernet.calls(list(supernet.blocks), noisy(supernet, data, part).inputs)
