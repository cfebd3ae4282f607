"""The global rule, exactly: the least sum of block losses within the budget."""

from functools import partial

import numpy as np

from diffnas.one_each import SLACK, one_each
from diffnas.select.local import local
from diffnas.select.table import ROUNDING, Limits, Rows, Table, tightened


def global_exact(table: Table, seed: int) -> tuple[Rows, float]:
    """Least sum_k l_k s.t. all limits hold, one subnet a block: a mixed-integer linear program.

    The rule of the blockwise lineage before the local one (DNA, arXiv 1911.13053), solved to the
    optimum by HiGHS. The second figure is the largest block loss over its benchmark.
    """
    rows = tightened(table, partial(_optimum, table))
    rows = rows or local(table, seed)[0]
    return rows, table.worst(rows)


def _optimum(table: Table, limits: Limits) -> Rows | None:
    """The solver's optimum; where its tolerance passes a limit, that of limits as much tighter."""
    for margin in (0.0, SLACK):
        rows = _solve(table, {metric: limit - margin for metric, limit in limits.items()})
        sums = [metric for metric in limits if metric in table.costs]
        if rows and all(table.total(m, rows) <= limits[m] * ROUNDING for m in sums):
            return rows
    return None


def _solve(table: Table, limits: Limits) -> Rows | None:
    names = list(table.losses)
    objective = np.concatenate([table.sums[name] for name in names])
    positive = objective[objective > 0]
    # In units of the least, that the solver's tolerances may not blur it; but not of a mere zero.
    unit = max(positive.min(), 1e-12 * positive.max()) if len(positive) else 1.0
    held = [
        (
            np.concatenate([table.costs[metric][name] for name in names]),
            limit * ROUNDING - table.fixed[metric],
        )
        for metric, limit in limits.items()
        if metric in table.costs
    ]
    found = one_each([len(table.losses[name]) for name in names], objective / unit, held)
    return None if found is None else dict(zip(names, found[0], strict=True))
