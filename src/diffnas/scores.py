"""The score table: every subnet's block loss over a fixed validation batch."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from diffnas.architecture import BlockScores, subnet_at
from diffnas.blocks import Call
from diffnas.losses import BlockLoss, block_loss, block_target
from diffnas.progress import Progress
from diffnas.supernet import BlockSupernet

Plain = Mapping[str, Mapping[str, nn.Module]]
"""The plain module of every option of a block, by slot."""


def plain_options(block: BlockSupernet) -> Plain:
    """All options of a block as plain modules with the supernet's weights."""
    return {
        path: {option: slot.plain(option) for option in slot.edits}
        for path, slot in block.slots.items()
    }


@contextmanager
def shared_prefixes(block: BlockSupernet, plain: Plain) -> Iterator[None]:
    """While active, a slot repeats its last output as long as no option up to its own changes.

    Within one block input this makes a walk over subnets in lexicographic order the walk over the
    tree of prefixes: each node is computed once, by its plain module.
    """
    slots = list(block.slots.values())
    options = [plain[path] for path in block.slots]
    remembered: list[tuple[tuple[str, ...], Any] | None] = [None] * len(slots)

    def wrap(depth: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            prefix = tuple(slot.active for slot in slots[: depth + 1])
            last = remembered[depth]
            if last is None or last[0] != prefix:
                output = options[depth][prefix[-1]](*args, **kwargs)
                last = remembered[depth] = (prefix, output)
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
    plain: Plain | None = None,
) -> BlockScores:
    """Losses of all subnets of a block, averaged over the validation batches.

    ``calls``: the teacher's calls of this block, one per validation batch of equal size.
    ``plain``: its options, where they were made already.
    """
    plain = plain or plain_options(block)
    space = block.space
    choices = space.choices()
    losses = np.zeros(len(choices))
    batches = 0
    for call in calls:
        batches += 1
        target = block_target(call, kind)
        with shared_prefixes(block, plain):
            for row, choice in enumerate(choices):
                block.activate(subnet_at(space, choice))
                output = block(*call.args, **call.kwargs)
                losses[row] += float(block_loss(output, target))
                if progress is not None and row % 64 == 63:
                    progress.update(row + 1)
    return BlockScores(choices, losses / batches)
