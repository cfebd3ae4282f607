"""The score table: every subnet's block loss over a fixed validation batch."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from diffnas.architecture import BlockScores, subnet_at
from diffnas.blocks import Call
from diffnas.losses import BlockLoss, block_loss, block_target
from diffnas.progress import Progress
from diffnas.supernet import BlockSupernet


@contextmanager
def shared_prefixes(block: BlockSupernet) -> Iterator[None]:
    """While active, a slot repeats its last output as long as no option up to its own changes.

    Within one block input this makes a walk over subnets in lexicographic order the walk over the
    tree of prefixes: each node is computed once.
    """
    slots = list(block.slots.values())
    remembered: list[tuple[tuple[str, ...], Any] | None] = [None] * len(slots)

    def wrap(depth: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            prefix = tuple(slot.active for slot in slots[: depth + 1])
            last = remembered[depth]
            if last is None or last[0] != prefix:
                last = remembered[depth] = (
                    prefix,
                    type(slots[depth]).forward(slots[depth], *args, **kwargs),
                )
            return last[1]

        return forward

    for depth, slot in enumerate(slots):
        slot.forward = wrap(depth)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for slot in slots:
            del slot.forward


@torch.no_grad()
def score_block(
    block: BlockSupernet,
    calls: Iterable[Call],
    kind: BlockLoss,
    progress: Progress | None = None,
) -> BlockScores:
    """Losses of all subnets of a block, averaged over the validation batches.

    ``calls``: the teacher's calls of this block, one per validation batch of equal size.
    """
    space = block.space
    choices = space.choices()
    losses = np.zeros(len(choices))
    batches = 0
    for call in calls:
        batches += 1
        target = block_target(call, kind)
        with shared_prefixes(block):
            for row, choice in enumerate(choices):
                block.activate(subnet_at(space, choice))
                output = block(*call.args, **call.kwargs)
                losses[row] += float(block_loss(output, target))
                if progress is not None and row % 64 == 63:
                    progress.update(row + 1)
    return BlockScores(choices, losses / batches)
