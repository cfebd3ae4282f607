"""The global rule as the lineage has it: an evolutionary search for the least sum of losses."""

from functools import partial
from typing import Any

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

from diffnas.select.local import local
from diffnas.select.table import ROUNDING, Limits, Rows, Table, tightened

POPULATION = 100
GENERATIONS = 200


def global_evolution(table: Table, seed: int) -> tuple[Rows, float]:
    """Small sum_k l_k s.t. all limits hold, by a genetic algorithm over one subnet a block.

    The search of the blockwise lineage (DNA, arXiv 1911.13053); 'global-exact' has the optimum.
    The second figure is the largest block loss over its benchmark.
    """
    rows = tightened(table, partial(_evolve, table, seed))
    rows = rows or local(table, seed)[0]
    return rows, table.worst(rows)


def _evolve(table: Table, seed: int, limits: Limits) -> Rows | None:
    """The best architecture of the last generation, if it is within the limits on sums."""
    names = list(table.losses)
    metrics = [metric for metric in limits if metric in table.costs]
    sizes = np.array([len(table.losses[name]) for name in names])

    def total(rows: Any, values: dict[str, Any]) -> Any:
        return sum(values[name][rows[:, column]] for column, name in enumerate(names))

    class Sum(Problem):
        def _evaluate(self, rows: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = total(rows, table.sums)
            over = [
                table.fixed[metric] + total(rows, table.costs[metric]) - limits[metric] * ROUNDING
                for metric in metrics
            ]
            out["G"] = np.stack(over, axis=1) if over else np.zeros((len(rows), 0))

    problem = Sum(
        n_var=len(names), n_obj=1, n_ieq_constr=len(metrics), xl=0, xu=sizes - 1, vtype=int
    )
    algorithm = GA(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=UniformCrossover(),
        mutation=_OtherSubnet(),
        eliminate_duplicates=True,
    )
    found = minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed)
    if found.X is None:
        return None
    return {name: int(row) for name, row in zip(names, found.X, strict=True)}


class _OtherSubnet(Mutation):
    """One block gets any other of its subnets."""

    def _do(self, problem: Any, rows: Any, *, random_state: Any, **_: Any) -> Any:
        rows = rows.copy()
        columns = random_state.integers(rows.shape[1], size=len(rows))
        rows[np.arange(len(rows)), columns] = random_state.integers(problem.xu[columns] + 1)
        return rows
