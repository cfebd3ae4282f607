"""The random rule: what equal cost alone buys. Always worth a row in a comparison."""

import numpy as np
import numpy.typing as npt

from diffnas.select.local import local
from diffnas.select.table import Rows, Table

DRAWS = 20_000
WALKS = 200
"""Architectures looked at one by one: some costs take a while to measure."""


def random(table: Table, seed: int) -> tuple[Rows, float]:
    """Of many random architectures that meet all limits, the one whose costs are nearest to them.

    Drawn uniformly of the table, which has all subnets of a block, or all that a search looked at,
    and not those alone whose errors at the output are known. Under limits that no draw meets,
    blocks of a draw are drawn again, at random but cheaper, until it does. The second figure is
    the largest block loss over its benchmark.
    """
    draw = np.random.default_rng(seed)
    names = list(table.losses)
    picks = np.stack([draw.integers(len(table.losses[name]), size=DRAWS) for name in names], axis=1)
    drawn = [_rows(names, pick) for pick in _nearest_first(table, names, picks)[:WALKS]]
    met = [rows for rows in drawn if table.within_limits(rows)]
    if not met:
        walked = [_cheaper(table, _rows(names, pick), draw) for pick in picks[:WALKS]]
        met = [rows for rows in walked if table.within_limits(rows)]
    rows = min(met, key=lambda rows: _slack(table, rows)) if met else local(table, seed)[0]
    return rows, table.worst(rows)


def _rows(names: list[str], pick: npt.NDArray[np.int64]) -> Rows:
    return {name: int(row) for name, row in zip(names, pick, strict=True)}


def _nearest_first(
    table: Table, names: list[str], picks: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The draws within the limits on sums over blocks, nearest to one of them first."""
    slack = np.full(len(picks), np.inf)
    for metric, limit in table.limits.items():
        if metric in table.costs:
            blocks = table.costs[metric]
            sums = sum(blocks[name][picks[:, column]] for column, name in enumerate(names))
            slack = np.minimum(slack, limit - table.fixed[metric] - sums)
    kept = np.flatnonzero(slack >= 0)
    return picks[kept[np.argsort(slack[kept], kind="stable")]]


def _cheaper(table: Table, rows: Rows, draw: np.random.Generator) -> Rows:
    """The rows after random steps to cheaper ones, until the limits hold or nothing is cheaper."""
    rows = dict(rows)
    metrics = [metric for metric in table.limits if metric in table.costs] or ["macs"]
    while not table.within_limits(rows):
        over = max(metrics, key=lambda m: table.total(m, rows) - table.limits.get(m, 0.0))
        costs = table.costs[over]
        cheaper = {
            name: np.flatnonzero(costs[name] < costs[name][row]) for name, row in rows.items()
        }
        names = [name for name, found in cheaper.items() if len(found)]
        if not names:
            break
        name = names[int(draw.integers(len(names)))]
        rows[name] = int(draw.choice(cheaper[name]))
    return rows


def _slack(table: Table, rows: Rows) -> float:
    return min(limit - table.total(metric, rows) for metric, limit in table.limits.items())
