from halving import candidates, halved, off

from diffnas.budget import parse_budget
from diffnas.select import select
from tests.select.tables import three_blocks


def test_the_lowest_loss_of_the_last_round_wins():
    after = {1: [4.0, 3.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0], 4: [0.0, 0.0, 1.0, 2.0]}
    found = list(range(8))
    winner, rounds = halved(found, lambda index, steps: after[steps][index], 1)
    assert winner == 2
    assert [(each["steps"], sorted(each["losses"])) for each in rounds] == [
        (1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, [2, 3]),
    ]


def test_one_alone_needs_no_round():
    assert halved([object()], lambda chosen, steps: 0.0, 25) == (0, [])


def test_candidates_differ_and_the_rules_own_comes_first():
    scores, budget = three_blocks(), parse_budget(macs=0.6)
    found = candidates(scores, budget, "global-exact", 4)
    assert found[0] == select(scores, budget, "global-exact").architecture
    assert 1 < len(found) <= 4
    assert all(found.count(each) == 1 for each in found)
    assert all(scores.space.cost_of(each).macs <= 0.6 * scores.space.teacher.macs for each in found)


def test_the_teachers_own_options_keep_their_errors():
    scores = three_blocks()
    for name, block in off(scores, seed=0).blocks.items():
        assert block.losses[0] == scores.blocks[name].losses[0]
        assert (block.losses[1:] != scores.blocks[name].losses[1:]).all()
