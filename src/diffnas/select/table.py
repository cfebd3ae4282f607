"""Score tables as arrays: losses and costs of every subnet, costs and limits of the whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from diffnas.architecture import SUMS, Architecture, BlockSpace, Choices, Floats, Scores, subnet_at
from diffnas.ties import smallest, tied, together

Rows = dict[str, int]
"""One subnet per block, as a row of its score table; blocks that are tied count as one."""

Limits = Mapping[str, float]
"""Metric -> the largest share of the teacher's whole cost."""

OptionCosts = Mapping[tuple[str, str, str], float]
"""A cost of each (block, slot, option), e.g. its latency in milliseconds."""


class SummedCost(NamedTuple):
    """A cost that adds up: the whole teacher's, every option's, and the base's.

    ``base``: the denoiser's with the space's trunk and the teacher's options; None where that is
    the teacher.
    """

    teacher: float
    options: OptionCosts
    base: float | None = None


class Members(NamedTuple):
    """Tied blocks, and their rows that go together, (combinations, blocks)."""

    names: tuple[str, ...]
    rows: npt.NDArray[np.int64]


ROUNDING = 1 + 1e-12
"""A sum of shares may pass its limit by its rounding errors."""

TIGHTENINGS = 12


@dataclass(frozen=True)
class Table:
    """What selection works on. Costs are shares of the teacher's whole cost.

    Blocks that are tied are one here: its subnets are those of them that go together, its losses
    and costs their sums.

    ``sums``: block -> (subnets,), losses as they are. ``losses``: the same, divided by the block's
    benchmark, so that 1 is as good as the teacher's own subnet in the same supernet. ``costs``:
    metric -> block -> (subnets,). ``members``: block -> which rows of which blocks it stands for.
    ``fixed``: metric -> share of stem, head and whatever else no slot reaches.
    ``limits``: metric -> largest share of the whole allowed.
    ``whole``: metrics that are no sums over blocks -> share of a whole architecture.
    """

    scores: Scores
    members: dict[str, Members]
    sums: dict[str, Floats]
    losses: dict[str, Floats]
    costs: dict[str, dict[str, Floats]]
    fixed: dict[str, float]
    limits: dict[str, float]
    whole: Mapping[str, Callable[[Architecture], float]] = field(default_factory=dict)

    def architecture(self, rows: Mapping[str, int]) -> Architecture:
        """The architecture of one row per block."""
        own = self.own_rows(rows)
        return Architecture(
            {
                block.name: subnet_at(
                    block, self.scores.blocks[block.name].choices[own[block.name]]
                )
                for block in self.scores.space.blocks
            }
        )

    def own_rows(self, rows: Mapping[str, int]) -> dict[str, int]:
        """The same rows, with one for each block of those that are tied."""
        found: dict[str, int] = {}
        for name, row in rows.items():
            names, combinations = self.members[name]
            found |= {each: int(own) for each, own in zip(names, combinations[row], strict=True)}
        return found

    def total(self, metric: str, rows: Mapping[str, int]) -> float:
        """Share of the teacher's cost that those rows come to."""
        if metric in self.whole:
            return self.whole[metric](self.architecture(rows))
        blocks = self.costs[metric]
        return self.fixed[metric] + sum(float(blocks[name][row]) for name, row in rows.items())

    def within_limits(self, rows: Mapping[str, int]) -> bool:
        """Whether all limits hold."""
        return all(
            self.total(metric, rows) <= limit * ROUNDING for metric, limit in self.limits.items()
        )

    def worst(self, rows: Mapping[str, int]) -> float:
        """The largest block loss over its own block's benchmark."""
        return max(float(self.losses[name][row]) for name, row in rows.items())

    def smallest(self, metric: str) -> float:
        """The least share of that metric that any architecture reaches."""
        if metric in self.whole:
            return self.whole[metric](smallest(self.scores.space.blocks))
        return self.fixed[metric] + sum(float(v.min()) for v in self.costs[metric].values())


def tightened(table: Table, optimum: Callable[[Limits], Rows | None]) -> Rows | None:
    """A rule's optimum under limits on sums over blocks, where others (memory) must hold as well.

    If they do not, MACs and parameters are held to the largest common share at which they do, found
    by bisection. None: no architecture was found.
    """
    rows = optimum(table.limits)
    if rows is None or table.within_limits(rows):
        return rows
    low, high, best = 0.0, max(table.total(metric, rows) for metric in SUMS), None
    for _ in range(TIGHTENINGS):
        middle = (low + high) / 2
        common = {metric: min(middle, table.limits.get(metric, 1.0)) for metric in SUMS}
        rows = optimum({**table.limits, **common})
        if rows is None or table.within_limits(rows):
            low, best = middle, rows or best
        else:
            high = middle
    return best


def make_table(
    scores: Scores,
    limits: Mapping[str, float],
    additive: Mapping[str, SummedCost] | None = None,
    whole: Mapping[str, Callable[[Architecture], float]] | None = None,
) -> Table:
    """The table of a score table.

    ``limits``: metric -> share. MACs and parameters are always there; ``additive`` gives further
    metrics that are sums, ``whole`` those that are none.
    """
    space = scores.space
    metrics = {
        name: SummedCost(
            float(getattr(space.teacher, name)),
            {
                (block.name, slot.path, option.name): float(getattr(option.cost, name))
                for block in space.blocks
                for slot in block.slots
                for option in slot.options
            },
            float(getattr(space.base, name)),
        )
        for name in SUMS
    } | dict(additive or {})
    choices = {name: block.choices for name, block in scores.blocks.items()}
    groups = [
        Members(tuple(block.name for block in blocks), together(blocks, choices))
        for blocks in tied(space.blocks)
    ]
    members = {" and ".join(group.names): group for group in groups}
    costs = {
        metric: _summed(
            members,
            {
                block.name: _rows(
                    block, scores.blocks[block.name].choices, cost.teacher, cost.options
                )
                for block in space.blocks
            },
        )
        for metric, cost in metrics.items()
    }
    # Row 0 of each block has the teacher's options; together with the fixed part they are the base.
    fixed = {
        metric: (1 if cost.base is None else cost.base / cost.teacher)
        - sum(float(rows[0]) for rows in costs[metric].values())
        for metric, cost in metrics.items()
    }
    sums = _summed(members, {name: block.losses for name, block in scores.blocks.items()})
    losses = {name: each / max(float(each[0]), 1e-12) for name, each in sums.items()}
    return Table(scores, members, sums, losses, costs, fixed, dict(limits), dict(whole or {}))


def _summed(members: Mapping[str, Members], values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Values of blocks, with those of tied ones added up."""
    return {
        name: np.sum(
            [values[each][own] for each, own in zip(group.names, group.rows.T, strict=True)], axis=0
        )
        for name, group in members.items()
    }


def _rows(block: BlockSpace, choices: Choices, teacher: float, options: OptionCosts) -> Floats:
    total = np.zeros(len(choices))
    for column, slot in enumerate(block.slots):
        values = np.array([options[block.name, slot.path, option.name] for option in slot.options])
        total += values[choices[:, column]]
    return total / teacher
