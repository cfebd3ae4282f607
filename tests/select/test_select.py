from itertools import product

import numpy as np
import pytest

from diffnas.architecture import Architecture, Cost
from diffnas.budget import Budget, parse_budget
from diffnas.errors import UserError
from diffnas.select import RULES, check_reachable, find_rule, select
from diffnas.select.table import SummedCost, make_table
from tests.select.tables import block, scores, three_blocks

SHARES = [0.15, 0.3, 0.5, 0.7, 0.9, 1.0]


def cost_at(table, tolerance, metric="macs"):
    """What the method says, written out: per block, the least cost within s times the benchmark."""
    total = table.space.teacher
    for space in table.space.blocks:
        found = table.blocks[space.name]
        within = [
            (getattr(space.cost_of(subnet), metric), loss, subnet)
            for choice, loss in zip(found.choices, found.losses, strict=True)
            if loss <= tolerance * found.losses[0] * (1 + 1e-12)
            for subnet in [
                {s.path: s.options[i].name for s, i in zip(space.slots, choice, strict=True)}
            ]
        ]
        best = min(within, key=lambda each: each[:2])
        total = total + space.cost_of(best[2]) - space.cost
    return getattr(total, metric)


def tolerances(table):
    return np.unique([r for b in table.blocks.values() for r in b.losses / b.losses[0] if r >= 1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("share", SHARES)
def test_a_budget_is_met(rule, metric, share):
    table = three_blocks()
    chosen = select(table, parse_budget(**{metric: share}), rule)
    assert getattr(chosen.cost, metric) <= share * getattr(table.space.teacher, metric)
    assert chosen.cost == table.space.cost_of(chosen.architecture)


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("share", SHARES)
def test_no_lower_tolerance_meets_the_budget(metric, share):
    table = three_blocks()
    chosen = select(table, parse_budget(**{metric: share}), "local")
    limit = share * getattr(table.space.teacher, metric)
    meeting = [s for s in tolerances(table) if cost_at(table, s, metric) <= limit]
    assert chosen.tolerance == pytest.approx(meeting[0])
    assert getattr(chosen.cost, metric) >= cost_at(table, meeting[0], metric)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("budget", [{"macs": 1}, {"params": 1}, {"macs": 1, "params": 1}])
@pytest.mark.parametrize("rule", ["global-exact", "local"])
def test_nothing_that_would_lower_a_blocks_loss_is_left_of_the_budget(rule, budget, share):
    table = three_blocks()
    limits = {metric: share for metric in budget}
    rows = select(table, parse_budget(**limits), rule).rows
    made = make_table(table, limits)
    for name, own in table.blocks.items():
        for row, loss in enumerate(own.losses):
            if loss < own.losses[rows[name]]:
                assert not made.within_limits({**rows, name: row})


def test_what_is_left_of_the_budget_raises_no_blocks_loss():
    table = three_blocks()
    for share in SHARES:
        chosen = select(table, parse_budget(macs=share), "local")
        at = select(table, Budget(tolerance=chosen.tolerance))
        for name, own in table.blocks.items():
            assert own.losses[chosen.rows[name]] <= own.losses[at.rows[name]]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("macs", "params"), [(0.5, 0.5), (0.9, 0.2), (0.2, 0.9), (0.1, 0.1)])
def test_joined_budgets_all_hold(rule, macs, params):
    table = three_blocks()
    chosen = select(table, parse_budget(macs=macs, params=params), rule)
    assert chosen.cost.macs <= macs * table.space.teacher.macs
    assert chosen.cost.params <= params * table.space.teacher.params


@pytest.mark.parametrize("joined", [{"params": 1.0}, {"params": 0.6}, {"params": 0.4}])
def test_a_further_budget_never_lowers_the_tolerance(joined):
    table = three_blocks()
    alone = select(table, parse_budget(macs=0.5), "local").tolerance
    assert select(table, parse_budget(macs=0.5, **joined), "local").tolerance >= alone


def test_absolute_budgets_are_exact():
    table = three_blocks()
    for macs in sorted({cost_at(table, s) for s in tolerances(table)}):
        budget = parse_budget(macs=f"{macs / 1000}K")
        assert select(table, budget, "local").cost.macs == macs


@pytest.mark.parametrize("tolerance", [1, 1.5, 2, 3, 10, 1000])
def test_a_tolerance_alone_bounds_every_blocks_loss(tolerance):
    table = three_blocks()
    chosen = select(table, parse_budget(tolerance=tolerance))
    for name, row in chosen.rows.items():
        assert table.blocks[name].losses[row] <= tolerance * table.blocks[name].losses[0]
    assert chosen.cost.macs == cost_at(table, tolerance)
    assert chosen.tolerance == tolerance


def test_a_tolerance_of_1_keeps_the_teacher_where_nothing_else_is_as_good():
    table = three_blocks(losses={"b": [0.1, *[0.2] * 11]})
    chosen = select(table, parse_budget(tolerance=1))
    assert chosen.architecture.blocks["b"] == {"s0": "teacher", "s1": "teacher"}


def test_a_tolerance_of_1_takes_a_cheaper_subnet_that_is_as_good():
    table = scores(block("a", [(10, 1), (5, 1), (0, 0)]), losses={"a": [0.2, 0.2, 0.3]})
    assert select(table, parse_budget(tolerance=1)).architecture.blocks["a"] == {"s0": "o1"}


def test_a_tolerance_that_nothing_reaches_keeps_the_teacher():
    table = scores(
        block("a", [(10, 1), (5, 1)]),
        block("b", [(10, 1), (5, 1)]),
        losses={"a": [2, 3], "b": [2, 1]},
    )
    chosen = select(table, parse_budget(tolerance=0.6))
    assert chosen.architecture.blocks == {"a": {"s0": "teacher"}, "b": {"s0": "o1"}}


def test_of_equal_costs_the_lower_loss_is_taken():
    table = scores(block("a", [(10, 1), (5, 1), (5, 1), (5, 1)]), losses={"a": [1, 3, 2, 2.5]})
    assert select(table, parse_budget(tolerance=5)).architecture.blocks["a"] == {"s0": "o2"}


@pytest.mark.parametrize("rule", ["global-exact", "local"])
def test_the_whole_teacher_meets_a_budget_of_all_it_costs(rule):
    table = three_blocks(losses={n: [0.1, *[0.2] * k] for n, k in [("a", 15), ("b", 11), ("c", 5)]})
    chosen = select(table, parse_budget(macs=1.0), rule)
    assert chosen.cost == table.space.teacher
    assert chosen.tolerance == 1


@pytest.mark.parametrize("rule", RULES)
def test_benchmarks_of_zero_do_no_harm(rule):
    table = three_blocks(losses={"a": [0.0, *[0.5] * 15]})
    chosen = select(table, parse_budget(macs=0.9), rule)
    assert chosen.cost.macs <= 0.9 * table.space.teacher.macs
    assert np.isfinite(chosen.tolerance)


@pytest.mark.parametrize("rule", RULES)
def test_the_smallest_cost_can_be_asked_for(rule):
    table = three_blocks()
    smallest = 11 + 3 * 5
    chosen = select(table, parse_budget(macs=f"{smallest / 1000}K"), rule)
    assert chosen.cost.macs == smallest


def test_a_budget_out_of_reach_is_named_with_the_smallest_reachable():
    table = three_blocks()
    share = (11 + 3 * 5) / table.space.teacher.macs
    pattern = rf"^--macs 0.01: the smallest reachable is {share:.3g} of the teacher's 446; raise it"
    with pytest.raises(UserError, match=pattern):
        select(table, parse_budget(macs=0.01))


def test_an_amount_out_of_reach_is_named_as_written_and_so_is_the_smallest_reachable():
    limit = {"macs": parse_budget(macs="0.2K").limits()["macs"]}
    pattern = r"^--macs 0.2K: the smallest reachable is 0.300 K of the teacher's 0.600 K; raise it"
    with pytest.raises(UserError, match=pattern):
        check_reachable("macs", limit, 0.5, 600)


def test_budgets_that_pull_apart_are_named_together():
    pulling = block("a", [(100, 100), (150, 0), (0, 150)])
    with pytest.raises(UserError, match=r"--macs 0.6.*--params 0.6.*raise one"):
        select(scores(pulling), parse_budget(macs=0.6, params=0.6))


def test_an_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"--rule locl: unknown; did you mean 'local'\?"):
        find_rule("locl")
    with pytest.raises(
        UserError, match="known: local, local-ratio, global-exact, global-evolution, random"
    ):
        find_rule("xyz")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_ratio_rule_takes_the_lowest_loss_within_the_ratio_of_each_block(share):
    table = three_blocks()
    chosen = select(table, parse_budget(macs=share), "local-ratio")
    ratio = chosen.tolerance
    for space in table.space.blocks:
        own, found = table.blocks[space.name], chosen.rows[space.name]
        slots = sum(slot.options[0].cost.macs for slot in space.slots)
        costs = [
            sum(s.options[i].cost.macs for s, i in zip(space.slots, choice, strict=True))
            for choice in own.choices
        ]
        within = [
            row for row, cost in enumerate(costs) if cost <= max(ratio * slots, min(costs)) + 1e-6
        ]
        assert own.losses[found] == min(own.losses[row] for row in within)


def test_the_ratio_rule_takes_no_less_than_it_may():
    table = three_blocks()
    generous = select(table, parse_budget(macs=0.7), "local-ratio")
    tight = select(table, parse_budget(macs=0.3), "local-ratio")
    assert generous.tolerance > tight.tolerance
    assert generous.cost.macs > tight.cost.macs


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_random_architecture_comes_near_its_budget(share):
    table = three_blocks()
    for seed in range(3):
        chosen = select(table, parse_budget(macs=share), "random", seed=seed)
        assert share - 0.05 <= chosen.cost.macs / table.space.teacher.macs <= share


def test_random_architectures_follow_from_the_seed():
    def drawn(seed, share):
        return select(three_blocks(), parse_budget(params=share), "random", seed=seed).rows

    assert drawn(1, 0.5) == drawn(1, 0.5)
    many = scores(*(block(f"b{i}", [(10, 10), (5, 5), (2, 2), (0, 0)]) for i in range(12)))
    picks = [select(many, parse_budget(macs=0.5), "random", seed=seed).rows for seed in range(4)]
    assert len({tuple(rows.values()) for rows in picks}) == 4


def test_random_architectures_meet_budgets_that_no_plain_draw_meets():
    # One option of ten is cheap: a draw of all twelve blocks costs nine tenths at the least.
    dear = [(100 - i, 1) for i in range(9)]
    many = scores(*(block(f"b{i}", [*dear, (0, 0)]) for i in range(12)))
    share = 0.35
    picks = [select(many, parse_budget(macs=share), "random", seed=seed) for seed in range(4)]
    assert all(pick.cost.macs <= share * many.space.teacher.macs for pick in picks)
    assert all(pick.cost.macs > 0.2 * many.space.teacher.macs for pick in picks)
    assert len({tuple(pick.rows.values()) for pick in picks}) == 4


def test_a_further_additive_metric_is_a_budget_like_any_other():
    table = three_blocks()
    milliseconds = {
        (b.name, s.path, o.name): 0.01 * o.cost.macs + 0.1
        for b in table.space.blocks
        for s in b.slots
        for o in s.options
    }
    additive = {"latency": SummedCost(8.0, milliseconds)}
    for rule in RULES:
        chosen = select(table, parse_budget(latency="6ms"), rule, additive=additive)
        own = {(b.name, s.path): "teacher" for b in table.space.blocks for s in b.slots}
        saved = sum(
            milliseconds[(*slot, "teacher")]
            - milliseconds[(*slot, chosen.architecture.blocks[slot[0]][slot[1]])]
            for slot in own
        )
        assert 8.0 - saved <= 6.0


def test_a_metric_of_whole_architectures_is_a_budget_too():
    table = three_blocks()

    def memory(architecture: Architecture) -> float:
        kept = [
            slot.option(architecture.blocks[space.name][slot.path]).cost.macs
            for space in table.space.blocks
            for slot in space.slots
        ]
        return 100.0 + 0.6 * max(kept)

    for rule in RULES:
        chosen = select(table, parse_budget(memory=0.8), rule, whole={"memory": (160.0, memory)})
        assert memory(chosen.architecture) <= 0.8 * 160


def test_table_rows_are_what_the_space_says():
    table = three_blocks()
    made = make_table(table, {"macs": 0.5})
    for rows in product(range(16), range(12), range(6)):
        picked = dict(zip("abc", rows, strict=True))
        cost = table.space.cost_of(made.architecture(picked))
        assert made.total("macs", picked) == pytest.approx(cost.macs / table.space.teacher.macs)
        assert made.total("params", picked) == pytest.approx(
            cost.params / table.space.teacher.params
        )


def test_without_slots_there_is_only_the_teacher():
    table = scores(block("a"), block("b"))
    assert select(table, parse_budget(macs=1.0)).cost == table.space.teacher
    with pytest.raises(UserError, match="smallest reachable is 1"):
        select(table, parse_budget(macs=0.5))


def test_losses_never_enter_the_local_rule_as_absolute_numbers():
    """Blocks are comparable by their benchmarks alone: another scale of losses changes nothing."""
    table = three_blocks()
    scaled = three_blocks(losses={"b": 1000 * table.blocks["b"].losses})
    budget = parse_budget(macs=0.5)
    assert select(scaled, budget, "local").rows == select(table, budget, "local").rows
    assert table.space.teacher == Cost(7 + 9 + 25 + 160 + 230, 11 + 15 + 180 + 110 + 130)
