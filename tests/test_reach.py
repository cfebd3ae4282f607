"""What two limits at once leave within reach."""

from itertools import product

import pytest

from diffnas.architecture import (
    SUMS,
    Architecture,
    BlockSpace,
    Cost,
    Scores,
    Space,
    subnet_at,
)
from diffnas.budget import parse_budget
from diffnas.errors import UserError
from diffnas.plan import check_budget
from diffnas.reach import least
from diffnas.ties import tied, together
from tests.engine import tiny_teacher
from tests.select.tables import block, scores, three_blocks
from tests.test_ties import tied_scores

PULLING = [(100, 100), (150, 0), (0, 150)]
"""MACs and parameters of options that save one of them and cost more of the other."""


def pulling() -> Scores:
    """Two blocks in which MACs and parameters go their own ways."""
    return scores(block("a", PULLING), block("b", [(80, 10), (60, 60), (10, 90)]))


def searched(space: Space, metric: str, limit: float) -> float:
    """The least of a metric, the other one limited, by looking at every architecture."""
    (other,) = set(SUMS) - {metric}
    groups = tied(space.blocks)
    choices = {block.name: block.choices() for block in space.blocks}
    found = []
    for rows in product(*(together(members, choices) for members in groups)):
        subnets = {
            block.name: subnet_at(block, choices[block.name][row])
            for members, own in zip(groups, rows, strict=True)
            for block, row in zip(members, own, strict=True)
        }
        cost = space.cost_of(Architecture(subnets))
        if getattr(cost, other) <= limit:
            found.append(getattr(cost, metric))
    return float(min(found))


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6])
@pytest.mark.parametrize(("metric", "other"), [SUMS, SUMS[::-1]])
@pytest.mark.parametrize("tables", [pulling, three_blocks, tied_scores])
def test_the_least_of_one_cost_beside_a_limit_on_the_other(tables, metric, other, share):
    space = tables().space
    limit = share * getattr(space.teacher, other) + 0.5  # no cost: none is at it by rounding
    assert least(space, metric, {other: limit}) == pytest.approx(searched(space, metric, limit))


def test_a_limit_that_nothing_meets_limits_nothing():
    space = three_blocks().space
    assert least(space, "macs", {"params": 1.0}) == least(space, "macs", {})


def test_limits_out_of_reach_together_are_refused_before_anything_is_trained():
    teacher = tiny_teacher()
    space = pulling().space
    check_budget(teacher, space, parse_budget(macs=0.6))
    check_budget(teacher, space, parse_budget(params=0.6))
    pattern = r"^--macs 0.6: the smallest reachable beside --params 0.6 is 1.15 .*; raise one"
    with pytest.raises(UserError, match=pattern):
        check_budget(teacher, space, parse_budget(macs=0.6, params=0.6))


def test_where_no_slot_is_searched_there_is_but_the_teacher():
    blocks = (BlockSpace("a", Cost(3, 5, 5), ()), BlockSpace("b", Cost(4, 6, 6), ()))
    space = Space(Cost(8, 20, 20), blocks, base=Cost(8, 20, 20))
    assert least(space, "macs", {"macs": 10, "params": 4}) == 20
