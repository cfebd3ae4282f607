"""The evolutionary global rule, against the exact one."""

import pytest

from diffnas.budget import parse_budget
from diffnas.select import select
from tests.select.tables import three_blocks


@pytest.mark.parametrize("shares", [{"macs": 0.3}, {"params": 0.5}, {"macs": 0.5, "params": 0.5}])
def test_it_comes_near_the_optimum_of_a_small_space(shares):
    table = three_blocks()

    def loss(rule):
        rows = select(table, parse_budget(**shares), rule, seed=1).rows
        return sum(float(table.blocks[name].losses[row]) for name, row in rows.items())

    assert loss("global-exact") - 1e-12 <= loss("global-evolution") <= 1.05 * loss("global-exact")


def test_it_follows_from_the_seed():
    table, budget = three_blocks(), parse_budget(macs=0.4)
    once, again = (select(table, budget, "global-evolution", seed=2).rows for _ in range(2))
    assert once == again
