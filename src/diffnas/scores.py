"""The score table: every subnet's block loss over a fixed validation batch."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from diffnas.architecture import BlockScores, BlockSpace, Choices, SlotSpace, subnet_at
from diffnas.blocks import Call, tensors
from diffnas.losses import BlockLoss, block_loss, block_target
from diffnas.progress import Progress
from diffnas.slots.upsampler import FOLDED
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
def shared_prefixes(block: BlockSupernet, plain: Plain) -> Iterator[list[Call | None]]:
    """While active, a slot repeats its last output as long as no option up to its own changes.

    Within one block input this makes a walk over subnets in lexicographic order the walk over the
    tree of prefixes: each node is computed once, by its plain module. Gives every slot's last call.
    """
    slots = list(block.slots.values())
    options = [plain[path] for path in block.slots]
    prefixes: list[tuple[str, ...] | None] = [None] * len(slots)
    calls: list[Call | None] = [None] * len(slots)

    def wrap(depth: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            prefix = tuple(slot.active for slot in slots[: depth + 1])
            last = calls[depth]
            if last is None or prefixes[depth] != prefix:
                output = options[depth][prefix[-1]](*args, **kwargs)
                prefixes[depth], calls[depth] = prefix, (last := Call(args, kwargs, output))
            return last.output

        return forward

    # An attribute of the slot itself goes before its class's method, until the walk ends.
    for depth, slot in enumerate(slots):
        vars(slot)["forward"] = wrap(depth)
    try:
        yield calls
    finally:
        for slot in slots:
            del vars(slot)["forward"]


@torch.no_grad()
def outputs(block: BlockSupernet, call: Call, plain: Plain, choices: Choices) -> Iterator[Any]:
    """What the block gives on a call, for all choices; in lexicographic order with least work.

    Many blocks end in their last slot: they hand its output on as it is. There, subnets that differ
    in that slot alone need no more than its options; whatever lies between the slots before (skips
    joined, images enlarged) is done once for all of them.
    """
    space, before, given = block.space, None, None
    ends: bool | None = None  # in its last slot: seen at the first two that differ there alone
    with shared_prefixes(block, plain) as calls:
        for choice in choices:
            alike = before is not None and np.array_equal(choice[:-1], before[:-1])
            before = choice
            if alike and ends:
                slot, last = space.slots[-1], calls[-1]
                assert last is not None
                module = plain[slot.path][slot.options[choice[-1]].name]
                made = module(*last.args, **last.kwargs)
                yield put(given, last.made, next(tensors(made)))
                continue
            block.activate(subnet_at(space, choice))
            earlier, whole = calls[-1:], block(*call.args, **call.kwargs)
            if alike and ends is None:
                ends = hands_on(given, whole, *earlier, *calls[-1:])
            given = whole
            yield whole


def put(given: Any, old: Any, new: Any) -> list[Tensor]:
    """The tensors of a tree, one of them exchanged."""
    return [new if leaf is old else leaf for leaf in tensors(given)]


def hands_on(one: Any, other: Any, end: Call | None, other_end: Call | None) -> bool | None:
    """Whether two results differ by nothing but the outputs of the last slot, which are in them.

    None: those outputs are the same, so nothing can be seen. Of a slot that gives several tensors,
    text and image for example, only the first would be exchanged.
    """
    if end is None or other_end is None or len(list(tensors(end.output))) > 1:
        return False
    last, other_last = end.made, other_end.made
    if torch.equal(last, other_last):
        return None
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return any(a is last for a, _ in pairs) and all(
        b is other_last if a is last else torch.equal(a, b) for a, b in pairs
    )


def same_as(slot: SlotSpace) -> list[int]:
    """Of each option the first that gives what it gives: a folded upsampler, what the teacher's.

    Where it enlarges to twice the size: see :class:`diffnas.student.modeling.FoldedUpsample2D`.
    """
    return [0 if option.name == FOLDED else index for index, option in enumerate(slot.options)]


def distinct(space: BlockSpace, choices: Choices) -> tuple[Choices, npt.NDArray[np.int64]]:
    """One of each set of subnets that give the same, in lexicographic order; each row's place."""
    if not space.slots:
        return choices[:1], np.zeros(len(choices), dtype=np.int64)
    columns = zip(space.slots, choices.T, strict=True)
    alike = [np.array(same_as(slot))[column] for slot, column in columns]
    rows, places = np.unique(np.stack(alike, 1), axis=0, return_inverse=True)
    return rows.astype(choices.dtype), places.reshape(-1)


@torch.no_grad()
def score_block(
    block: BlockSupernet,
    calls: Iterable[Call],
    kind: BlockLoss,
    *,
    progress: Progress | None = None,
    plain: Plain | None = None,
    choices: Choices | None = None,
) -> BlockScores:
    """Losses of a block's subnets, averaged over the validation batches.

    Subnets that give the same are evaluated once.
    ``calls``: the teacher's calls of this block, one per validation batch of equal size.
    ``plain``: its options, where they were made already; ``choices``: which subnets, as rows of
    option indices (all).
    """
    plain = plain or plain_options(block)
    choices = block.space.choices() if choices is None else choices
    losses = np.zeros(len(choices))
    batches = 0
    for call in calls:
        batches += 1
        target = block_target(call, kind)
        rows, places = choices, np.arange(len(choices))
        if call.kwargs.get("upsample_size") is None:  # else an image is not doubled
            rows, places = distinct(block.space, choices)
        found = np.zeros(len(rows))
        for row, output in enumerate(outputs(block, call, plain, rows)):
            found[row] = float(block_loss(output, target))
            if progress is not None and row % 64 == 63:
                progress.update((row + 1) * len(choices) // len(rows))
        losses += found[places]
    return BlockScores(choices, losses / batches)
