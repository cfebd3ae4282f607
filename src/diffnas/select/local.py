"""The local rule: every block on its own, one tolerance for all of them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt

from diffnas.architecture import SUMS, Floats
from diffnas.select.table import ROUNDING, Rows, Table

STEPS = 10
"""Weights between two metrics are tried in steps of a tenth."""

TRIES = 8
"""Rows of a block tried for what is left of a limit that takes long to check, such as memory."""


def at_tolerance(table: Table, costs: Mapping[str, Floats], tolerance: float) -> Rows:
    """Least cost s.t. l_k <= s * bench_k in each block; ties go to the lower loss.

    Where not even that is reached (s below 1), the teacher's own subnet.
    """
    return {
        name: _least(costs[name], losses, losses <= tolerance) if losses.min() <= tolerance else 0
        for name, losses in table.losses.items()
    }


def at_ratio(table: Table, costs: Mapping[str, Floats], ratio: float) -> Rows:
    """Least loss s.t. cost_k <= r * teacher's cost_k in each block; ties go to the lower cost."""
    return {
        name: _least(
            losses, costs[name], costs[name] <= max(ratio * costs[name][0], costs[name].min())
        )
        for name, losses in table.losses.items()
    }


def local(table: Table, seed: int) -> tuple[Rows, float]:
    """The least tolerance s at which all limits hold, and its rows, made better by what is left.

    Under several limits a block's cost is their weighted sum; the weights that need the least
    tolerance are taken.
    """
    ratios = np.unique(np.concatenate([np.ones(1), *table.losses.values()]))
    tolerances = ratios[ratios >= 1]
    best: tuple[Rows, float] | None = None
    for costs in weighted_costs(table):
        # Only a lower tolerance than the best so far is of interest.
        candidates = tolerances if best is None else tolerances[tolerances < best[1]]
        best = _first(candidates, partial(at_tolerance, table, costs), table.within_limits) or best
    # No tolerance helps where metrics pull apart: the cheapest rows of the last resort.
    rows, tolerance = best or (_cheapest(table), float(tolerances[-1]))
    return spent(table, rows), tolerance


def local_ratio(table: Table, seed: int) -> tuple[Rows, float]:
    """The largest ratio r of each block's own cost at which all limits hold, and its rows."""
    ratios = np.linspace(1, 0, 1001)
    best: tuple[Rows, float] | None = None
    for costs in weighted_costs(table):
        candidates = ratios if best is None else ratios[ratios > best[1]]
        best = _first(candidates, partial(at_ratio, table, costs), table.within_limits) or best
    return best or (_cheapest(table), 0.0)


def spent(table: Table, rows: Rows) -> Rows:
    """Lower block losses for what the rows leave of the limits, the worst block first.

    One tolerance for all blocks moves by steps, as whole rows change, and ends below the limits.
    """
    found: Rows | None = rows
    while found is not None:
        rows, found = found, _better(table, found)
    return rows


def _better(table: Table, rows: Rows) -> Rows | None:
    """With the lowest loss that the limits allow in the worst block whose loss they let fall."""
    for name in sorted(rows, key=lambda name: -table.losses[name][rows[name]]):
        losses, row = table.losses[name], rows[name]
        allowed = losses < losses[row]
        for metric, limit in table.limits.items():
            if metric in table.costs:
                costs = table.costs[metric][name]
                allowed &= costs - costs[row] <= limit * ROUNDING - table.total(metric, rows)
        candidates = np.flatnonzero(allowed)
        for candidate in candidates[np.argsort(losses[candidates], kind="stable")][:TRIES]:
            better = {**rows, name: int(candidate)}
            if table.within_limits(better):
                return better
    return None


def weighted_costs(table: Table) -> Iterator[dict[str, Floats]]:
    """One scalar cost per subnet for every weighting of the limited metrics.

    Memory is no sum over blocks; parameters and MACs, which drive it, stand in for it.
    """
    metrics = [metric for metric in table.limits if metric in table.costs]
    if not metrics or any(metric in table.whole for metric in table.limits):
        metrics = sorted({*metrics, *SUMS})
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


def _first(
    candidates: Floats, rows_at: Callable[[float], Rows], hold: Callable[[Rows], bool]
) -> tuple[Rows, float] | None:
    """The first candidate whose rows hold, where all later ones' do too; rows and candidate."""
    if not len(candidates) or not hold(rows_at(float(candidates[-1]))):
        return None
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if hold(rows_at(float(candidates[middle]))):
            high = middle
        else:
            low = middle + 1
    return rows_at(float(candidates[low])), float(candidates[low])


def _least(primary: Floats, secondary: Floats, allowed: npt.NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(allowed)
    return int(rows[np.lexsort((secondary[rows], primary[rows]))[0]])
