"""What a space reaches of one cost while another is limited: known before anything is trained."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from diffnas.architecture import SUMS, Cost, Space
from diffnas.one_each import SLACK, one_each
from diffnas.ties import combinations, smallest, tied

Costs = npt.NDArray[np.float64]
"""MACs and parameters, as shares of the teacher's, (..., 2)."""


def least(space: Space, metric: str, limits: Mapping[str, float]) -> float:
    """The least MACs or parameters of an architecture within the limits on the other of them.

    Where these cannot be met, as if there were none.
    """
    cost = space.cost_of(smallest(space.blocks, metric))
    free = float(getattr(cost, metric))
    others = {each: limits[each] for each in SUMS if each in limits and each != metric}
    if all(getattr(cost, each) <= limit for each, limit in others.items()):
        return free
    bound = _solved(space, metric, others)
    return free if bound is None else max(free, bound * getattr(space.teacher, metric))


def _solved(space: Space, metric: str, limits: Mapping[str, float]) -> float | None:
    """The least share of that metric; None where the limits cannot be met."""
    choices = [_shares(space, costs) for costs in _choices(space)]
    if not choices:  # no slot is searched: there is but the teacher
        return None
    fixed = _shares(space, [space.base])[0] - sum(costs[0] for costs in choices)
    costs = np.concatenate(choices)
    held = [
        (costs[:, column], limits[name] / getattr(space.teacher, name) - fixed[column] + SLACK)
        for column, name in enumerate(SUMS)
        if name in limits
    ]
    wanted = SUMS.index(metric)
    found = one_each([len(each) for each in choices], costs[:, wanted], held)
    return None if found is None else float(fixed[wanted] + found[1])


def _choices(space: Space) -> Iterator[list[Cost]]:
    """Costs of all that may stand in a place, the teacher's own first.

    A slot is a place; blocks that are tied, or have but some subnets, are one together.
    """
    for members in tied(space.blocks):
        if len(members) == 1 and members[0].only is None:
            for slot in members[0].slots:
                yield [option.cost for option in slot.options]
        else:
            yield [cost for _, cost in combinations(members)]


def _shares(space: Space, costs: list[Cost]) -> Costs:
    return np.array(
        [[getattr(cost, name) / getattr(space.teacher, name) for name in SUMS] for cost in costs]
    )
