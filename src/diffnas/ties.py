"""Blocks that are tied: they share something, of which all must need the same.

A level of a UNet has one number of layers in a stock config, down and up.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffnas.architecture import Architecture, BlockSpace, Choices, Cost, Subnet, subnet_at

Needs = Mapping[str, Any]


def sharing(blocks: Sequence[BlockSpace]) -> list[BlockSpace]:
    """The blocks, their needs of nothing but what several of them share, and do not always need."""
    wanted: dict[str, dict[str, set[Any]]] = {}
    for block in blocks:
        for needed in block.needs or ():
            for name, each in needed.items():
                wanted.setdefault(name, {}).setdefault(block.name, set()).add(each)
    shared = {
        name for name, by in wanted.items() if len(by) > 1 and len(set().union(*by.values())) > 1
    }
    return [replace(block, needs=_alone(block, shared)) for block in blocks]


def _alone(block: BlockSpace, shared: set[str]) -> tuple[dict[str, Any], ...] | None:
    left = [
        {name: each for name, each in needed.items() if name in shared}
        for needed in block.needs or ()
    ]
    return tuple(left) if any(left) else None


def tied(blocks: Sequence[BlockSpace]) -> list[list[BlockSpace]]:
    """The blocks in groups that share nothing with each other; most are alone."""
    groups: list[tuple[set[str], list[BlockSpace]]] = []
    for block in blocks:
        names = {name for needed in block.needs or () for name in needed}
        near = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        merged = names.union(*(group[0] for group in near))
        groups.append((merged, [each for group in near for each in group[1]] + [block]))
    return [members for _, members in groups]


def together(
    members: Sequence[BlockSpace], choices: Mapping[str, Choices]
) -> npt.NDArray[np.int64]:
    """Rows of tied blocks that go together, (combinations, blocks); in the first all are 0.

    ``choices``: block -> the option indices of its rows (rows, slots).
    """
    found: list[tuple[list[int], dict[str, Any]]] = [([], {})]
    for block in members:
        needed = dict(zip(block.only or (), block.needs or (), strict=False))
        rows = [needed.get(tuple(map(int, choice)), {}) for choice in choices[block.name]]
        found = [
            ([*picked, row], before | own)
            for picked, before in found
            for row, own in enumerate(rows)
            if all(before.get(name, each) == each for name, each in own.items())
        ]
    return np.array([picked for picked, _ in found], dtype=np.int64)


def smallest(blocks: Sequence[BlockSpace], metric: str = "macs") -> Architecture:
    """The architecture of least MACs or parameters, of blocks that are tied as they go together."""
    found: dict[str, Subnet] = {}
    for members in tied(blocks):
        if len(members) == 1 and members[0].only is None:
            found[members[0].name] = members[0].least(metric)
            continue
        found |= min(combinations(members), key=lambda pair: getattr(pair[1], metric))[0]
    return Architecture({block.name: found[block.name] for block in blocks})


def combinations(members: Sequence[BlockSpace]) -> Iterator[tuple[dict[str, Subnet], Cost]]:
    """What tied blocks may be together, the teacher's own first, and what that costs."""
    choices = {block.name: block.choices() for block in members}
    subnets = [[subnet_at(block, each) for each in choices[block.name]] for block in members]
    costs = [list(map(block.cost_of, own)) for block, own in zip(members, subnets, strict=True)]
    for rows in together(members, choices):
        picked = {
            block.name: own[row] for block, own, row in zip(members, subnets, rows, strict=True)
        }
        yield picked, sum((own[row] for own, row in zip(costs, rows, strict=True)), Cost())


def architectures(blocks: Sequence[BlockSpace]) -> int:
    """How many there are."""
    return math.prod(
        members[0].size
        if len(members) == 1
        else len(together(members, {block.name: block.choices() for block in members}))
        for members in tied(blocks)
    )
