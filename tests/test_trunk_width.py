import pytest

from diffnas.budget import parse_budget
from diffnas.errors import UserError
from diffnas.families import dit
from diffnas.plan import check_budget
from diffnas.settings import Settings, SpaceSettings
from diffnas.space import make_space, smallest_cost
from diffnas.trunk_width import space_for
from tests.engine import tiny_teacher
from tests.models import tiny_dit

GROUPS = {"norm_num_groups": 8, "block_out_channels": (32, 64)}


def chosen(space=None, overrides=GROUPS, **budget):
    teacher = tiny_teacher(**overrides)
    settings = Settings(space=SpaceSettings(**(space or {})))
    limits = parse_budget(**budget)
    filled, space, reasons = space_for(settings, teacher.denoiser, teacher.family, limits)
    assert space == make_space(teacher.denoiser, teacher.family, filled.space)
    return filled.space.trunk, reasons.get("space.trunk", "")


@pytest.mark.parametrize(
    ("budget", "trunk"),
    [
        ({"macs": 0.5}, 6 / 8),
        ({"macs": 0.25}, 4 / 8),
        ({"params": "25%"}, 4 / 8),
        ({"macs": 1.0}, 1.0),
        ({"latency": 0.5}, 6 / 8),
        ({"macs": 0.5, "memory": 0.25}, 4 / 8),
    ],
)
def test_streams_and_what_is_inside_layers_shrink_alike(budget, trunk):
    found, reason = chosen(**budget)
    assert found == trunk
    assert reason.startswith(f"{trunk:g}, {trunk * 8:.0f} of 8 norm groups")


def test_an_amount_counts_as_the_share_that_it_is():
    teacher = tiny_teacher(**GROUPS)
    macs = make_space(teacher.denoiser, teacher.family, SpaceSettings()).teacher.macs
    assert chosen(macs=f"{macs / 4e6:.2f}M")[0] == chosen(macs=0.25)[0]


def test_a_trunk_that_was_given_stays():
    found, reason = chosen(space={"trunk": 0.9}, macs=0.25)
    assert (found, reason) == (0.9, "0.9, 7 of 8 norm groups")


@pytest.mark.parametrize(
    "space", [{"preset": "paper"}, {"preset": "stock"}, {"include": "mid*"}, {"exclude": "mid*"}]
)
def test_where_a_part_is_searched_the_streams_stay(space):
    found, reason = chosen(space=space, macs=0.9)
    assert (found, "only a part" in reason) == (1.0, True)


@pytest.mark.parametrize("budget", [{"tolerance": 3}, {"latency": "5ms"}])
def test_without_a_share_of_the_cost_the_streams_stay(budget):
    assert chosen(**budget)[0] == 1.0


def test_slots_that_do_not_reach_the_budget_get_a_narrower_trunk():
    few = {"resnet_widths": [0.75], "resnet_skip": False, "resnet_kernels": []}
    assert chosen(macs=0.25)[0] == 0.5
    found, _ = chosen(space=few, macs=0.25)
    assert found < 0.5
    teacher = tiny_teacher(**GROUPS)
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings(**few, trunk=found))
    assert smallest_cost(space).macs <= 0.25 * space.teacher.macs


def test_a_memory_budget_is_reached_too():
    found, _ = chosen(memory=0.15)
    teacher = tiny_teacher(**GROUPS)
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings(trunk=found))
    check_budget(teacher, space, parse_budget(memory=0.15))


def test_near_budgets_share_a_trunk_whatever_the_number_of_groups():
    many = {"norm_num_groups": 32, "block_out_channels": (32, 64)}
    assert {chosen(overrides=many, macs=macs)[0] for macs in (0.48, 0.5, 0.55, 0.6)} == {6 / 8}


def test_where_no_fewer_groups_divide_more_are_taken():
    odd = {"attn_norm_num_groups": 2, "norm_num_groups": 4, "block_out_channels": (32, 64)}
    found, reason = chosen(overrides=odd, macs=0.05)
    assert (found, reason[:20]) == (0.5, "0.5, 2 of 4 norm gro")


def test_a_model_with_layers_of_other_kinds_keeps_its_trunk():
    other = {
        "block_out_channels": (32, 64),
        "down_block_types": ("KDownBlock2D",) * 2,
        "up_block_types": ("KUpBlock2D",) * 2,
        "mid_block_type": None,
    }
    assert chosen(overrides=other, macs=0.5)[0] == 1


def test_numbers_of_groups_that_do_not_divide_are_passed_over():
    assert chosen(overrides={**GROUPS, "attn_norm_num_groups": 4}, macs=0.7)[0] == 6 / 8
    with pytest.raises(UserError, match=r"space.trunk = 0.875: .* cut to 7 of 8 parts; use 1"):
        make_space(
            tiny_teacher(**GROUPS, attn_norm_num_groups=4).denoiser,
            tiny_teacher().family,
            SpaceSettings(trunk=0.875),
        )


def test_a_stock_space_has_the_teachers_trunk():
    teacher = tiny_teacher()
    with pytest.raises(UserError, match="a stock config cannot express it"):
        make_space(teacher.denoiser, teacher.family, SpaceSettings(preset="stock", trunk=0.5))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"exclude": "*"}, r"space\.exclude = \['\*'\]"),
        ({"preset": "paper", "max_subnets": 1}, "space.preset = paper, space.max_subnets = 1"),
    ],
)
def test_a_space_that_leaves_nothing_to_choose_is_refused(given, named):
    with pytest.raises(UserError, match=f"^{named}: nothing is left to choose in UNet2DModel; "):
        chosen(space=given)


def test_kernels_alone_leave_nothing_to_choose_in_a_model_without_resnet_layers():
    settings = Settings(space=SpaceSettings(preset="paper"))
    with pytest.raises(UserError, match=r"^space\.preset = paper: nothing .* in DiTTransformer2DM"):
        space_for(settings, tiny_dit().transformer, dit.FAMILY, parse_budget())


def test_narrower_streams_need_nothing_else_to_choose():
    assert chosen(space={"exclude": "*", "trunk": 0.75})[0] == 0.75


def test_streams_are_multiples_too():
    assert chosen(overrides=GROUPS, space={"multiple_of": 16}, macs=0.4)[0] == 4 / 8
    assert chosen(overrides=GROUPS, macs=0.4)[0] == 5 / 8
    teacher = tiny_teacher(**GROUPS)
    with pytest.raises(UserError, match=r"20 channels are no multiple of space.multiple_of = 16"):
        make_space(teacher.denoiser, teacher.family, SpaceSettings(trunk=0.625, multiple_of=16))
