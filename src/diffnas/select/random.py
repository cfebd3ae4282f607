"""The random rule: what equal cost alone buys. Always worth a row in a comparison."""

import numpy as np

from diffnas.select.local import local
from diffnas.select.table import Rows, Table

DRAWS = 20_000


def random(table: Table, seed: int) -> tuple[Rows, float]:
    """Of many uniform draws that meet all limits, the one whose costs are nearest to them.

    The second figure is the largest block loss over its benchmark.
    """
    draw = np.random.default_rng(seed)
    names = list(table.losses)
    picks = np.stack([draw.integers(len(table.losses[name]), size=DRAWS) for name in names], axis=1)
    nearest: tuple[float, Rows] | None = None
    for pick in picks:
        rows = {name: int(row) for name, row in zip(names, pick, strict=True)}
        if not table.within_limits(rows):
            continue
        slack = min(limit - table.total(metric, rows) for metric, limit in table.limits.items())
        if nearest is None or slack < nearest[0]:
            nearest = slack, rows
        if slack < 0.01:
            break
    rows = nearest[1] if nearest is not None else local(table, seed)[0]
    return rows, max(float(table.losses[name][row]) for name, row in rows.items())
