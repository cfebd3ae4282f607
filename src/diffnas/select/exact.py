"""The global rule, exactly: the least sum of block losses within the budget."""

from functools import partial

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from diffnas.select.local import local
from diffnas.select.table import ROUNDING, Floats, Limits, Rows, Table, tightened

TOLERANCE = 1e-5
"""Shares of the teacher's cost by which the solver may miss a limit, generously."""


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
    for margin in (0.0, TOLERANCE):
        rows = _solve(table, {metric: limit - margin for metric, limit in limits.items()})
        sums = [metric for metric in limits if metric in table.costs]
        if rows and all(table.total(m, rows) <= limits[m] * ROUNDING for m in sums):
            return rows
    return None


def _solve(table: Table, limits: Limits) -> Rows | None:
    """Minimise c.x over x in {0, 1} s.t. one x a block is 1 and costs stay within the limits."""
    names = list(table.losses)
    losses = [table.sums[name] for name in names]
    sizes = [len(values) for values in losses]
    starts = np.cumsum([0, *sizes])
    one_each = csr_array(
        (np.ones(starts[-1]), (np.repeat(np.arange(len(names)), sizes), np.arange(starts[-1])))
    )
    constraints = [LinearConstraint(one_each, 1, 1)]
    for metric, limit in limits.items():
        if metric in table.costs:
            costs: Floats = np.concatenate([table.costs[metric][name] for name in names])
            rest = limit * ROUNDING - table.fixed[metric]
            constraints.append(LinearConstraint(costs[None], -np.inf, rest))
    objective = np.concatenate(losses)
    positive = objective[objective > 0]
    # In units of the least, that the solver's tolerances may not blur it; but not of a mere zero.
    unit = max(positive.min(), 1e-12 * positive.max()) if len(positive) else 1.0
    solved = milp(
        objective / unit,
        constraints=constraints,
        integrality=np.ones(starts[-1]),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        return None
    return {
        name: int(np.argmax(solved.x[start:end]))
        for name, start, end in zip(names, starts, starts[1:], strict=False)
    }
