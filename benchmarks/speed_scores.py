"""A score table over the least it could take, and its gain over whole evaluation: `speed.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from timing import quartiles, seconds
from torch import nn

from diffnas import slots
from diffnas.architecture import subnet_at
from diffnas.blocks import Call, capture
from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.families.batches import random_batch
from diffnas.losses import block_loss, block_target
from diffnas.rng import generator
from diffnas.scores import distinct, score_block
from diffnas.student.modeling import edit_module
from diffnas.supernet import BlockSupernet, Supernet

Layer = tuple[Call, list[nn.Module]]


def layers_of(model: nn.Module) -> list[str]:
    """Paths of the layers that a slot understands."""
    return [path for path, _, _ in slots.find(model)]


def inside(block: BlockSupernet, calls: Mapping[str, Call]) -> list[str]:
    """Paths inside a block of the captured layers, in the order they begin."""
    prefix = f"{block.space.name}."
    ended = [path.removeprefix(prefix) for path in calls if path.startswith(prefix)]

    def begins(path: str) -> tuple[int, int]:
        """With the first layer in it, and before that."""
        return next(i for i, p in enumerate(ended) if f"{p}.".startswith(f"{path}.")), len(path)

    return sorted(ended, key=begins)


def layers(teacher: Teacher, block: BlockSupernet, calls: Mapping[str, Call]) -> Iterator[Layer]:
    """A call of each of them, and the plain modules of its options: one where it is no slot."""
    spaces = {slot.path: slot for slot in block.space.slots}
    for path in inside(block, calls):
        whole = f"{block.space.name}.{path}"
        own = teacher.denoiser.get_submodule(whole)
        edits = [option.edit for option in spaces[path].options] if path in spaces else [None]
        yield calls[whole], [own if edit is None else edit_module(own, edit) for edit in edits]


def walk(nodes: list[Layer], rows: Sequence[Sequence[int]], leaf: Callable[[], object]) -> None:
    """Call every node of the rows' tree of prefixes once; ``rows`` are in order."""
    before: Sequence[int] = ()
    for row in rows:
        pairs = enumerate(zip(before, row, strict=False))  # the first row has none before it
        shared = next((i for i, (a, b) in pairs if a != b), len(before))
        for (call, modules), option in zip(nodes[shared:], row[shared:], strict=True):
            modules[option](*call.args, **call.kwargs)
        leaf()
        before = row


def one_by_one(block: BlockSupernet, call: Call, choices: Any) -> None:
    """Evaluate subnets whole, nothing shared."""
    target = block_target(call, "residual")
    for choice in choices:
        block.activate(subnet_at(block.space, choice))
        float(block_loss(block(*call.args, **call.kwargs), target))


@torch.no_grad()
def score_row(
    supernet: Supernet, data: Data, *, batch_size: int, repeats: int, sample: int
) -> dict[str, Any]:
    """Times of all blocks together, and each block's ratios."""
    teacher, random = supernet.teacher, generator(0, "speed", 0)
    noisy = random_batch(teacher, data, batch_size, random)
    found = [
        f"{name}.{path}"
        for name in supernet.blocks
        for path in layers_of(teacher.denoiser.get_submodule(name))
    ]
    _, calls = capture(teacher.denoiser, [*supernet.blocks, *found], noisy.inputs)
    sums = [dict.fromkeys(("shared", "floor", "with_losses", "whole"), 0.0) for _ in range(repeats)]
    blocks = {}
    for name, block in supernet.blocks.items():
        works, scale = block_works(teacher, block, calls, sample)
        for work in works.values():
            work()  # shapes not met before
        turns = [{key: seconds(work) for key, work in works.items()} for _ in range(repeats)]
        for total, turn in zip(sums, turns, strict=True):
            turn["whole"] *= scale
            for key in total:
                total[key] += turn[key]
        blocks[name] = {"subnets": len(block.space.choices()), **ratios(turns)}
    seconds_of = {f"{key}_s": quartiles([total[key] for total in sums]) for key in sums[0]}
    return {**ratios(sums), **seconds_of, "blocks": blocks}


def block_works(
    teacher: Teacher, block: BlockSupernet, calls: Mapping[str, Call], sample: int
) -> tuple[dict[str, Callable[[], object]], float]:
    """What is timed of one block; how many times the whole evaluations stand for."""
    call, choices = calls[block.space.name], block.space.choices()
    nodes, paths = list(layers(teacher, block, calls)), list(block.slots)
    columns = [paths.index(path) if path in paths else None for path in inside(block, calls)]
    apart, _ = distinct(block.space, choices)
    rows = sorted([0 if i is None else int(choice[i]) for i in columns] for choice in apart)
    pick, count = np.random.default_rng(0), min(sample, len(choices))
    some = choices[pick.choice(len(choices), count, replace=False)]
    target = block_target(call, "residual")
    works: dict[str, Callable[[], object]] = {
        "shared": partial(score_block, block, [call], "residual"),
        "floor": partial(walk, nodes, rows, lambda: None),
        "with_losses": partial(walk, nodes, rows, lambda: float(block_loss(call.output, target))),
        "whole": partial(one_by_one, block, call, some),
    }
    return works, len(choices) / count


def ratios(turns: list[dict[str, float]]) -> dict[str, Any]:
    """Over both floors, and the gain."""
    return {
        "over_floor": quartiles([turn["shared"] / turn["floor"] for turn in turns]),
        "over_floor_with_losses": quartiles(
            [turn["shared"] / turn["with_losses"] for turn in turns]
        ),
        "gain_over_whole": quartiles([turn["whole"] / turn["shared"] for turn in turns]),
    }
