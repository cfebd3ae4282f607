"""The local rule: every block on its own, one tolerance for all of them."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

from diffnas.select.table import Floats, Rows, Table

STEPS = 10
"""Weights between two metrics are tried in steps of a tenth."""


def at_tolerance(table: Table, costs: Mapping[str, Floats], tolerance: float) -> Rows:
    """argmin cost s.t. l_k <= s * bench_k in each block; ties go to the lower loss."""
    return {
        name: _least(costs[name], losses, losses <= tolerance)
        for name, losses in table.losses.items()
    }


def at_ratio(table: Table, costs: Mapping[str, Floats], ratio: float) -> Rows:
    """argmin loss s.t. cost_k <= r * teacher's cost_k in each block; ties go to the lower cost."""
    return {
        name: _least(losses, costs[name], costs[name] <= max(ratio * costs[name][0], costs[name].min()))
        for name, losses in table.losses.items()
    }


def local(table: Table, seed: int) -> tuple[Rows, float]:
    """The least tolerance s at which all limits hold, and its rows.

    Under several limits a block's cost is their weighted sum; the weights that need the least
    tolerance are taken.
    """
    ratios = np.unique(np.concatenate(list(table.losses.values())))
    tolerances = ratios[ratios >= 1]
    best: tuple[Rows, float] | None = None
    for costs in weighted_costs(table):
        # Only a lower tolerance than the best so far is of interest.
        candidates = tolerances if best is None else tolerances[tolerances < best[1]]
        index = _first(
            len(candidates),
            lambda i: table.within_limits(at_tolerance(table, costs, candidates[i])),
        )
        if index is not None:
            best = at_tolerance(table, costs, candidates[index]), float(candidates[index])
    # No tolerance helps where metrics pull apart: the cheapest rows of the last resort.
    return best or (_cheapest(table), float(tolerances[-1]))


def local_ratio(table: Table, seed: int) -> tuple[Rows, float]:
    """The largest ratio r of each block's own cost at which all limits hold, and its rows."""
    ratios = np.linspace(1, 0, 1001)
    best: tuple[Rows, float] | None = None
    for costs in weighted_costs(table):
        candidates = ratios if best is None else ratios[ratios > best[1]]
        index = _first(
            len(candidates), lambda i: table.within_limits(at_ratio(table, costs, candidates[i]))
        )
        if index is not None:
            best = at_ratio(table, costs, candidates[index]), float(candidates[index])
    return best or (_cheapest(table), 0.0)


def weighted_costs(table: Table) -> Iterator[dict[str, Floats]]:
    """One scalar cost per subnet for every weighting of the limited metrics.

    Memory is no sum over blocks; parameters and MACs, which drive it, stand in for it.
    """
    metrics = [metric for metric in table.limits if metric in table.costs]
    if not metrics or any(metric in table.whole for metric in table.limits):
        metrics = sorted({*metrics, "macs", "params"})
    for weights in product(range(STEPS + 1), repeat=len(metrics)):
        if sum(weights) == STEPS:
            yield {
                name: sum(
                    (
                        weight * table.costs[metric][name]
                        for weight, metric in zip(weights, metrics, strict=True)
                    ),
                    np.zeros_like(losses),
                )
                for name, losses in table.losses.items()
            }


def _cheapest(table: Table) -> Rows:
    for costs in weighted_costs(table):
        rows = {name: int(values.argmin()) for name, values in costs.items()}
        if table.within_limits(rows):
            break
    return rows


def _first(count: int, holds: Callable[[int], bool]) -> int | None:
    """The first index at which a condition holds that, once it holds, goes on holding."""
    if not count or not holds(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _least(primary: Floats, secondary: Floats, allowed: npt.NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(allowed)
    return int(rows[np.lexsort((secondary[rows], primary[rows]))[0]])
