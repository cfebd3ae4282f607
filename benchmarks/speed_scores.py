"""A score table over the least it could take, and its gain over whole evaluation: `speed.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from timing import quartiles, seconds
from torch import nn

from diffnas import slots
from diffnas.architecture import subnet_at
from diffnas.blocks import Call, capture
from diffnas.data import Data, batch
from diffnas.families import Teacher
from diffnas.losses import block_loss, block_target
from diffnas.rng import generator
from diffnas.scores import score_block
from diffnas.student.modeling import edit_module
from diffnas.supernet import BlockSupernet, Supernet

Layer = tuple[Call, list[nn.Module]]


def layers(teacher: Teacher, block: BlockSupernet, calls: Mapping[str, Call]) -> Iterator[Layer]:
    """A block's searchable layers in order: a call of each, and its options' plain modules."""
    spaces = {slot.path: slot for slot in block.space.slots}
    for path, call in calls.items():
        inner = path.removeprefix(f"{block.space.name}.")
        if inner != path:
            own = teacher.denoiser.get_submodule(path)
            edits = [option.edit for option in spaces[inner].options] if inner in spaces else [None]
            yield call, [own if edit is None else edit_module(own, edit) for edit in edits]


def walk(rest: list[Layer], leaf: Callable[[], object]) -> None:
    """Call every node of the tree of prefixes once."""
    if not rest:
        leaf()
        return
    call, modules = rest[0]
    for module in modules:
        module(*call.args, **call.kwargs)
        walk(rest[1:], leaf)


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
    images, labels = batch(data, batch_size, random)
    noisy = teacher.family.training_batch(teacher.pipeline, images, labels, random, None)
    found = [
        f"{name}.{path}"
        for name in supernet.blocks
        for path, _, _ in slots.find(teacher.denoiser.get_submodule(name))
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
        blocks[name] = {"subnets": block.space.size, **ratios(turns)}
    seconds_of = {f"{key}_s": quartiles([total[key] for total in sums]) for key in sums[0]}
    return {**ratios(sums), **seconds_of, "blocks": blocks}


def block_works(
    teacher: Teacher, block: BlockSupernet, calls: Mapping[str, Call], sample: int
) -> tuple[dict[str, Callable[[], object]], float]:
    """What is timed of one block; how many times the whole evaluations stand for."""
    call = calls[block.space.name]
    nodes = list(layers(teacher, block, calls))
    pick, count = np.random.default_rng(0), min(sample, block.space.size)
    sizes = [len(slot.options) for slot in block.space.slots]
    some = np.unravel_index(pick.choice(block.space.size, count, replace=False), sizes or [1])
    target = block_target(call, "residual")
    works: dict[str, Callable[[], object]] = {
        "shared": partial(score_block, block, [call], "residual"),
        "floor": partial(walk, nodes, lambda: None),
        "with_losses": partial(walk, nodes, lambda: float(block_loss(call.output, target))),
        "whole": partial(one_by_one, block, call, np.stack(some, axis=1)[:, : len(sizes)]),
    }
    return works, block.space.size / count


def ratios(turns: list[dict[str, float]]) -> dict[str, Any]:
    """Over both floors, and the gain."""
    return {
        "over_floor": quartiles([turn["shared"] / turn["floor"] for turn in turns]),
        "over_floor_with_losses": quartiles(
            [turn["shared"] / turn["with_losses"] for turn in turns]
        ),
        "gain_over_whole": quartiles([turn["whole"] / turn["shared"] for turn in turns]),
    }
