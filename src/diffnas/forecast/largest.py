"""The largest student of a space, and of a budget."""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from diffnas.architecture import SUMS, Architecture, Option, Space
from diffnas.budget import Budget


def widest(space: Space) -> Architecture:
    """The teacher's options but for ResNet layers that may be wider: what a supernet holds most."""
    return Architecture(
        {
            block.name: {
                slot.path: max(
                    (option for option in slot.options if not _apart(option)),
                    key=lambda option: option.cost.params,
                ).name
                for slot in block.slots
            }
            for block in space.blocks
        }
    )


def most_params(space: Space, budget: Budget) -> float:
    """No student within the budget's MACs and parameters has more parameters than this.

    max sum p.x s.t. one x a slot is 1 and costs stay within the limits, with x in [0, 1]: what a
    relaxation allows, which is hardly more than whole options do. Infinite if none is within them.
    """
    slots = [slot for block in space.blocks for slot in block.slots]
    options = [option for slot in slots for option in slot.options]
    if not options:
        return space.base.params
    place = np.repeat(np.arange(len(slots)), [len(slot.options) for slot in slots])
    each = csr_array((np.ones(len(options)), (place, np.arange(len(options)))))
    costs, fixed = {}, {}
    for metric in SUMS:  # as shares of the teacher's
        whole = getattr(space.teacher, metric)
        costs[metric] = np.array([getattr(option.cost, metric) for option in options]) / whole
        own = sum(getattr(slot.options[0].cost, metric) for slot in slots)
        fixed[metric] = (getattr(space.base, metric) - own) / whole
    limits = {
        metric: amount.of(getattr(space.teacher, metric)) / getattr(space.teacher, metric)
        for metric, amount in budget.limits().items()
        if metric in SUMS
    }
    solved = linprog(
        -costs["params"],
        A_ub=np.array([costs[metric] for metric in limits]) if limits else None,
        b_ub=[limit - fixed[metric] for metric, limit in limits.items()] if limits else None,
        A_eq=each,
        b_eq=np.ones(len(slots)),
    )
    if solved.x is None:
        return float("inf")
    return (fixed["params"] - float(solved.fun)) * space.teacher.params


def _apart(option: Option) -> bool:
    """Whether it has weights of its own: another kernel, a low rank."""
    edit = option.edit or {}
    return "rank" in edit or edit.get("kernel", 3) != 3
