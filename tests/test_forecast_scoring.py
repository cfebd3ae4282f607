"""What scoring is foretold to compute, beside what it does."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffnas.architecture import BlockSpace, Cost, Option, SlotSpace, Space
from diffnas.effects import output_errors
from diffnas.forecast.scoring import scoring_macs
from diffnas.parallel import single_threaded
from diffnas.scoring import score
from diffnas.settings import ScoreSettings, SpaceSettings
from diffnas.space import make_space
from diffnas.supernet import Supernet
from diffnas.trunk import kept_channels, make_trunk
from tests.engine import SMALL_SPACE, tiny_data, tiny_supernet, tiny_teacher

SETTINGS = ScoreSettings(images=8, batch_size=4, candidates=6, output_images=8, by="block")
SEARCHED = SETTINGS.model_copy(update={"enumerate": 90, "evaluations": 25})


def with_errors(settings):
    return settings.model_copy(update={"by": "output"})


def narrower():
    teacher, data = tiny_teacher(), tiny_data()
    settings = SMALL_SPACE.model_copy(update={"trunk": 0.5})
    space = make_space(teacher.denoiser, teacher.family, settings)
    kept = kept_channels(teacher, data, space.trunk[0], batch_size=16, seed=0)
    return Supernet(teacher, space, make_trunk(teacher, kept))


@pytest.fixture(
    params=[
        pytest.param(tiny_supernet, id="as wide as the teacher"),
        pytest.param(narrower, id="narrower"),
        pytest.param(
            lambda: tiny_supernet(SpaceSettings(preset="stock"), layers_per_block=2),
            id="certain subnets alone",
        ),
    ]
)
def net(request):
    return request.param()


def counted(work):
    """MACs of some work, in one thread, attention in plain products: the counter sees no other."""
    plain = sdpa_kernel(SDPBackend.MATH)
    with single_threaded(True), plain, FlopCounterMode(display=False) as counter:
        result = work()
    return counter.get_total_flops() / 2, result


def test_scores_compute_what_is_foretold(net):
    macs, table = counted(lambda: score(net, tiny_data(), SETTINGS))
    foretold = scoring_macs(net.space, SETTINGS)
    assert foretold == pytest.approx(macs, rel=1e-6)
    macs, _ = counted(lambda: output_errors(net, tiny_data(), table, SETTINGS))
    more = scoring_macs(net.space, with_errors(SETTINGS)) - foretold
    assert more == pytest.approx(macs, rel=0.03)  # of the trunk's shares of the teacher


def test_of_certain_subnets_a_shared_beginning_is_computed_once():
    def slot(path, *macs):
        options = (Option(str(each), None, Cost(0, each, each)) for each in macs)
        return SlotSpace(path, "any", tuple(options))

    slots = slot("first", 100, 10), slot("second", 7, 3)
    only = ((0, 0), (0, 1), (1, 1))
    block = BlockSpace("block", Cost(0, 109, 109), slots, only=only)
    whole = Cost(0, 1000, 1000)
    macs = scoring_macs(Space(whole, (block,), whole), SETTINGS) / SETTINGS.images
    # The teacher; what lies between slots, for each subnet; two of the first's nodes, three of the
    # second's.
    assert macs == 1000 + 3 * (109 - 107) + (100 + 10) + (7 + 3 + 3)


def test_of_a_searched_block_no_less_is_foretold_than_is_computed():
    net = tiny_supernet()
    macs, _ = counted(lambda: score(net, tiny_data(), SEARCHED))
    assert macs < scoring_macs(net.space, SEARCHED) < 2 * macs


def test_a_search_that_may_look_at_all_subnets_takes_no_more_than_two_walks():
    space, all_of_them = tiny_supernet().space, SETTINGS.model_copy(update={"evaluations": 10**5})
    searched = all_of_them.model_copy(update={"enumerate": 1})
    whole = scoring_macs(space, all_of_them)
    assert whole < scoring_macs(space, searched) < 2 * whole
