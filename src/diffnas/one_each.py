"""The least sum of one choice in every place, within limits: a mixed-integer linear program."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from diffnas.architecture import Floats

SLACK = 1e-5
"""By which the solver may miss a limit that is about 1, generously."""


def one_each(
    sizes: Sequence[int], values: Floats, limits: Iterable[tuple[Floats, float]]
) -> tuple[list[int], float] | None:
    """Minimise c.x over x in {0, 1} s.t. one x a place is 1 and costs stay within the limits.

    ``sizes``: how many choices each place has; ``values``: c of all of them, place after place;
    ``limits``: costs of all of them, and the most that their sum may be. Gives the choice of each
    place and c.x, solved to the optimum by HiGHS; None where the limits cannot be met.
    """
    starts = np.cumsum([0, *sizes])
    count = int(starts[-1])
    place = np.repeat(np.arange(len(sizes)), sizes)
    each = csr_array((np.ones(count), (place, np.arange(count))))
    solved = milp(
        values,
        constraints=[
            LinearConstraint(each, 1, 1),
            *(LinearConstraint(costs[None], -np.inf, limit) for costs, limit in limits),
        ],
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        return None
    chosen = [int(np.argmax(solved.x[start:end])) for start, end in pairwise(starts)]
    return chosen, float(solved.fun)
