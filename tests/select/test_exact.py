"""The exact global rule, against all architectures of a small space."""

from itertools import product

import numpy as np
import pytest

from diffnas.architecture import Cost
from diffnas.budget import parse_budget
from diffnas.select import select
from tests.select.tables import block, scores, three_blocks


def best_of_all(table, **shares):
    """The least sum of losses among all architectures within the shares."""
    space = table.space
    sums = []
    for rows in product(*(range(len(found.losses)) for found in table.blocks.values())):
        total = space.teacher
        for own, found, row in zip(space.blocks, table.blocks.values(), rows, strict=True):
            names = zip(own.slots, found.choices[row], strict=True)
            subnet = {slot.path: slot.options[option].name for slot, option in names}
            total = total + own.cost_of(subnet) - own.cost
        if all(getattr(total, m) <= s * getattr(space.teacher, m) for m, s in shares.items()):
            picked = zip(table.blocks.values(), rows, strict=True)
            sums.append(sum(float(found.losses[row]) for found, row in picked))
    return min(sums)


def sum_of_losses(table, chosen):
    return sum(float(table.blocks[name].losses[row]) for name, row in chosen.rows.items())


@pytest.mark.parametrize(
    "shares",
    [
        {"macs": 0.15},
        {"macs": 0.5},
        {"params": 0.3},
        {"macs": 0.5, "params": 0.5},
        {"macs": 0.9, "params": 0.2},
        {"macs": 1.0},
    ],
)
def test_no_architecture_within_the_budget_has_a_smaller_sum_of_losses(shares):
    table = three_blocks()
    chosen = select(table, parse_budget(**shares), "global-exact")
    assert sum_of_losses(table, chosen) == pytest.approx(best_of_all(table, **shares))


def test_a_budget_met_exactly_is_met():
    table = scores(block("a", [(100, 20), (50, 20), (0, 20)]), stem=Cost(0, 0))
    share = table.space.cost_of(select(table, parse_budget(macs=0.6), "local").architecture).macs
    exact = select(table, parse_budget(macs=f"{share / 1000}K"), "global-exact")
    assert exact.cost.macs == share


def test_one_sacrificed_block_may_be_the_best_sum_where_the_local_rule_spares_it():
    # Of two equal blocks, one pays with a small absolute loss that is many times its benchmark.
    half = [(100, 100), (0, 0)]
    table = scores(
        block("easy", half), block("hard", half), losses={"easy": [0.001, 0.1], "hard": [0.1, 0.4]}
    )
    budget = parse_budget(macs=0.6)
    assert select(table, budget, "global-exact").architecture.blocks["easy"]["s0"] != "teacher"
    assert select(table, budget, "local").architecture.blocks["hard"]["s0"] != "teacher"


def test_memory_which_is_no_sum_over_blocks_is_held_too():
    table = three_blocks()
    shares = {"memory": (100.0, lambda architecture: 100 * np.sqrt(share(table, architecture)))}
    chosen = select(table, parse_budget(memory="0.7"), "global-exact", whole=shares)
    assert chosen.predicted["memory_share"] <= 0.7


def share(table, architecture):
    return table.space.cost_of(architecture).macs / table.space.teacher.macs


@pytest.mark.parametrize("tiny", [0.0, 1e-20])
def test_a_loss_of_nearly_nothing_keeps_the_others_apart(tiny):
    one, other = (block(name, [(10, 10), (6, 6), (2, 2)]) for name in "ab")
    table = scores(one, other, losses={"a": [tiny, 0.3, 1.0], "b": [0.1, 0.2, 2.0]})
    chosen = select(table, parse_budget(macs=0.8), "global-exact")
    assert sum_of_losses(table, chosen) == best_of_all(table, macs=0.8)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_choice_does_not_depend_on_the_unit_of_losses(unit):
    draw = np.random.default_rng(0)
    costs = {
        name: [(10, 10), *((int(c), int(c)) for c in draw.integers(0, 10, 5))] for name in "abcdef"
    }
    losses = {name: [0.0, *draw.random(5)] for name in costs}
    scaled = {name: [unit * loss for loss in each] for name, each in losses.items()}
    blocks = [block(name, each) for name, each in costs.items()]
    one, other = (
        select(scores(*blocks, losses=each), parse_budget(macs=0.7), "global-exact")
        for each in (losses, scaled)
    )
    assert one.rows == other.rows
