"""The search inside a block, on made-up losses of a space small enough to enumerate."""

from itertools import product

import numpy as np
import pytest
from pymoo.indicators.hv import HV

from diffnas.block_search import POPULATION, search
from diffnas.errors import UserError
from diffnas.settings import parse

SIZES = (6, 2, 6, 3, 6, 4)


def losses(choices):
    """Grow with what is saved, slot by slot, and jump where two cheap options meet."""
    weights = np.array([0.3, 0.8, 0.25, 0.5, 0.4, 0.2])
    meeting = (choices[:, 0] > 3) & (choices[:, 2] > 3)
    return 0.01 * np.exp(choices @ weights + 0.7 * meeting + 0.3 * np.sin(choices @ weights * 5))


def costs(choices):
    return 30 - choices @ np.array([2.0, 1.5, 1.0, 1.2, 0.9, 1.1])


def hypervolume(choices):
    everything = np.array(list(product(*map(range, SIZES))))
    logs = np.log(losses(everything))
    low, high = [logs.min(), costs(everything).min()], [logs.max(), costs(everything).max()]
    points = np.stack([np.log(losses(choices)), costs(choices)], axis=1)
    return HV(ref_point=np.ones(2))((points - low) / np.subtract(high, low))


def found(evaluations, seed=0, evaluate=losses):
    return search(SIZES, evaluate, costs, evaluations=evaluations, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_tenth_of_the_evaluations_finds_nearly_the_whole_front(seed):
    everything = np.array(list(product(*map(range, SIZES))))
    assert hypervolume(found(len(everything) // 10, seed)) >= 0.95 * hypervolume(everything)


def test_no_subnet_is_evaluated_twice_nor_more_of_them_than_asked():
    asked = []

    def watched(choices):
        asked.extend(map(tuple, choices))
        return losses(choices)

    choices = found(150, evaluate=watched)
    assert len(asked) == len(set(asked)) == len(choices) == 150


def test_results_are_in_order_from_the_teachers_own_subnet_to_the_cheapest():
    choices = found(60)
    assert list(map(tuple, choices)) == sorted(map(tuple, choices))
    assert not choices[0].any()
    assert tuple(choices[-1]) == tuple(size - 1 for size in SIZES)


def test_the_fewest_evaluations_that_can_be_set_reach_the_cheapest_subnet():
    with pytest.raises(UserError, match=r"score\.evaluations"):
        parse({"score": {"evaluations": POPULATION - 1}})
    choices = found(parse({"score": {"evaluations": POPULATION}}).score.evaluations)
    assert tuple(choices[-1]) == tuple(size - 1 for size in SIZES)


def test_the_same_seed_gives_the_same_subnets():
    np.testing.assert_array_equal(found(100, seed=3), found(100, seed=3))
    assert not np.array_equal(found(100, seed=3), found(100, seed=4))


def test_a_space_smaller_than_the_evaluations_ends():
    assert (
        len(search((2, 3), lambda c: 1.0 + c.sum(1), lambda c: -c.sum(1), evaluations=50, seed=0))
        <= 6
    )
