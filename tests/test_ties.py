from itertools import product

import numpy as np
import pytest

from diffnas.architecture import (
    Architecture,
    BlockSpace,
    Cost,
    space_from_json,
    space_to_json,
    subnet_at,
)
from diffnas.budget import parse_budget
from diffnas.families.unet2d import FAMILY
from diffnas.select import RULES, select
from diffnas.settings import SpaceSettings
from diffnas.space import make_space, smallest_cost
from diffnas.ties import architectures, sharing, smallest, tied, together
from tests.models import tiny_unet
from tests.select.tables import block, scores


def sized(name, *needs):
    """A block of as many subnets as needs."""
    only = tuple((row,) for row in range(len(needs)))
    return BlockSpace(name, Cost(), (), only, needs if any(needs) else None)


def names(groups):
    return [[each.name for each in group] for group in groups]


def test_only_what_several_blocks_need_differently_ties_them():
    first = sized("a", {"layers": 2, "type": "A", "same": 0}, {"layers": 1, "type": "B", "same": 0})
    second = sized("b", {"layers": 2, "other": "A", "same": 0}, {"layers": 1, "same": 0})
    third = sized("c", {"own": 1, "same": 0}, {"own": 2, "same": 0})
    found = sharing([first, second, third])
    assert found[0].needs == ({"layers": 2}, {"layers": 1})
    assert found[1].needs == ({"layers": 2}, {"layers": 1})
    assert found[2].needs is None


def test_blocks_that_share_something_by_way_of_a_third_are_tied():
    blocks = [sized("a", {"x": 1}), sized("b", {"z": 1}), sized("c", {"y": 1}), sized("d", {})]
    assert names(tied([*blocks, sized("e", {"x": 1, "y": 1})])) == [["b"], ["d"], ["a", "c", "e"]]


def test_subnets_go_together_where_they_need_the_same_or_nothing():
    down = sized("down", {"layers": 2, "depth": 10}, {"layers": 1, "depth": 10}, {"layers": 1})
    middle = sized("middle", {"depth": 10}, {"depth": 5}, {})
    up = sized("up", {"layers": 2}, {"layers": 1})
    blocks = [down, middle, up]
    rows = together(blocks, {each.name: each.choices() for each in map(rowed, blocks)})
    assert rows.tolist() == [
        [0, 0, 0],
        [0, 2, 0],
        [1, 0, 1],
        [1, 2, 1],
        [2, 0, 1],
        [2, 1, 1],
        [2, 2, 1],
    ]


def rowed(each):
    """The block, of which the slot itself does not matter."""
    slot = block("", [(0, 0)] * each.size).slots[0]
    return BlockSpace(each.name, each.cost, (slot,), each.only, each.needs)


def tied_scores():
    """Two tied blocks and one that is not; by themselves the first two would choose otherwise."""
    made = scores(
        block("a", [(100, 20), (50, 15), (0, 0)]),
        block("b", [(80, 30), (0, 0)]),
        block("c", [(60, 90), (30, 40), (0, 0)]),
        losses={"a": [1, 1.1, 5], "b": [1, 9], "c": [1, 2, 3]},
    )
    needs = {"a": ({"n": 2}, {"n": 1}, {"n": 1}), "b": ({"n": 2}, {"n": 1})}
    blocks = tuple(
        BlockSpace(
            each.name,
            each.cost,
            each.slots,
            tuple(map(tuple, each.choices().tolist())) if each.name in needs else None,
            needs.get(each.name),
        )
        for each in made.space.blocks
    )
    space = type(made.space)(made.space.teacher, blocks, made.space.base)
    return type(made)(space, made.blocks)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.8, 1.0])
def test_every_rule_chooses_what_goes_together(rule, share):
    table = tied_scores()
    chosen = select(table, parse_budget(macs=share), rule)
    assert (chosen.rows["a"] > 0) == (chosen.rows["b"] > 0)
    assert chosen.cost.macs <= share * table.space.teacher.macs
    assert chosen.cost == table.space.cost_of(chosen.architecture)


def test_the_exact_rule_finds_the_least_sum_of_what_goes_together():
    table = tied_scores()
    blocks = table.space.blocks
    limit = 0.55 * table.space.teacher.macs
    pairs = [(0, 0), (1, 1), (2, 1)]
    sums = [
        table.blocks["a"].losses[a] + table.blocks["b"].losses[b] + table.blocks["c"].losses[c]
        for a, b in pairs
        for c in range(3)
        if table.space.teacher.macs
        - sum(
            slot.options[0].cost.macs - slot.options[row].cost.macs
            for slot, row in zip([each.slots[0] for each in blocks], (a, b, c), strict=True)
        )
        <= limit
    ]
    rows = select(table, parse_budget(macs=0.55), "global-exact").rows
    found = sum(table.blocks[name].losses[row] for name, row in rows.items())
    assert found == pytest.approx(min(sums))


def test_architectures_are_counted_as_they_go_together():
    assert architectures(tied_scores().space.blocks) == 3 * 3
    assert (
        architectures(scores(block("a", [(1, 1)] * 3), block("b", [(1, 1)] * 2)).space.blocks) == 6
    )


def test_what_blocks_need_is_kept_in_the_space_and_nothing_else_is_there_where_they_need_nothing():
    space = tied_scores().space
    assert space_from_json(space_to_json(space)) == space
    assert ["needs" in values for values in space_to_json(space)["blocks"]] == [True, True, False]


def test_no_rows_but_the_teachers_always_go_together():
    blocks = tied_scores().space.blocks[:2]
    rows = together(blocks, {each.name: each.choices()[:1] for each in blocks})
    assert np.array_equal(rows, [[0, 0]])


@pytest.mark.parametrize("patterns", [(), ("up_blocks.0.*",), ("down_blocks.1.*",)])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_the_smallest_of_a_stock_space_is_the_least_of_what_goes_together(patterns, metric):
    unet = tiny_unet(layers_per_block=2)
    space = make_space(unet, FAMILY, SpaceSettings(preset="stock", exclude=patterns))
    costs = []
    groups = tied(space.blocks)
    rows = [together(g, {b.name: b.choices() for b in g}) for g in groups]
    for picked in product(*rows):
        subnets = {
            block.name: subnet_at(block, block.choices()[row])
            for group, each in zip(groups, picked, strict=True)
            for block, row in zip(group, each, strict=True)
        }
        costs.append(getattr(space.cost_of(Architecture(subnets)), metric))
    assert getattr(smallest_cost(space, metric), metric) == min(costs)
    assert getattr(space.cost_of(smallest(space.blocks, metric)), metric) == min(costs)
