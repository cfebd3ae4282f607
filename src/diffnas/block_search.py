"""Evolutionary search in a block of too many subnets: its front of loss against cost, in one go."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.problems.static import StaticProblem

from diffnas.architecture import Choices, Floats

POPULATION = 20
"""Subnets of a generation. ``score.evaluations`` is as many at least: the first has both ends."""
SPREAD = 0.15
"""Deviation, in shares of a slot's options, of the first population from the diagonal."""
IDLE = 20
"""Generations without a new subnet after which the space counts as exhausted."""


def search(
    sizes: Sequence[int],
    losses: Callable[[Choices], Floats],
    costs: Callable[[Choices], Floats],
    *,
    evaluations: int,
    seed: int,
) -> Choices:
    """The subnets that NSGA-II (Deb et al. 2002) looked at, (subnets, slots), in order.

    ``sizes``: options of each slot, from the teacher's own to the cheapest; ``losses`` and
    ``costs``: both objectives of rows of option indices. Each subnet is evaluated once, and at most
    ``evaluations`` of them, which are at least :data:`POPULATION`. The first population lies along
    the diagonal from the teacher's own subnet to the cheapest: these are always among the results.
    """
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=_diagonal(sizes, np.random.default_rng(seed)),
        crossover=UniformCrossover(),
        mutation=_Step(),
    )
    last = np.array(sizes) - 1
    problem = Problem(n_var=len(sizes), n_obj=2, xl=0, xu=last, vtype=int)
    algorithm.setup(problem, termination=("n_gen", 10**9), seed=seed)
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    idle = 0
    while len(found) < evaluations and idle < IDLE:
        asked = algorithm.ask()
        if asked is None:  # nothing is left that the population has not got
            break
        rows = [tuple(int(option) for option in row) for row in asked.get("X")]
        new = sorted(set(rows) - found.keys())[: evaluations - len(found)]
        idle = 0 if new else idle + 1
        if new:
            choices = np.array(new, dtype=np.int16)
            # The front is read off ratios of losses, so their logarithms are what to spread over.
            logs = np.log(np.maximum(losses(choices), 1e-12))
            found |= dict(zip(new, zip(logs, costs(choices), strict=True), strict=True))
        known = [row in found for row in rows]
        asked = asked[known]
        objectives = np.array([found[row] for row in rows if row in found])
        algorithm.evaluator.eval(StaticProblem(problem, F=objectives), asked)
        algorithm.tell(infills=asked)
    return np.array(sorted(found), dtype=np.int16)


def _diagonal(sizes: Sequence[int], draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """Subnets spread from the teacher's own (all 0) to the cheapest, and around that line."""
    along = np.linspace(0, 1, POPULATION)[:, None]
    around = along + SPREAD * draw.standard_normal((POPULATION, len(sizes)))
    rows = np.round(np.clip(around, 0, 1) * (np.array(sizes) - 1)).astype(int)
    rows[0], rows[-1] = 0, np.array(sizes) - 1
    return np.unique(rows, axis=0)


class _Step(Mutation):
    """One slot's option becomes the next dearer or cheaper one."""

    def _do(self, problem: Any, rows: Any, *, random_state: Any, **_: Any) -> Any:
        rows = rows.copy()
        columns = random_state.integers(rows.shape[1], size=len(rows))
        steps = random_state.choice([-1, 1], size=len(rows))
        every = np.arange(len(rows))
        rows[every, columns] = np.clip(rows[every, columns] + steps, 0, problem.xu[columns])
        return rows
