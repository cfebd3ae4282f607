from dataclasses import replace
from itertools import product

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffnas.architecture import Architecture, Cost, Option, SlotSpace, Space, subnet_at
from diffnas.errors import UserError
from diffnas.families import dit, unet2d_condition
from diffnas.measure.cost import call_cost
from diffnas.measure.meta import to_meta
from diffnas.settings import UNREAD, SpaceSettings
from diffnas.space import make_space, smallest_cost, thin
from diffnas.student.modeling import apply_edits
from diffnas.student.stock import stock_config
from diffnas.ties import architectures, tied, together
from tests.engine import SMALL_SPACE, tiny_teacher
from tests.models import tiny_condition_unet, tiny_dit


def space_of(settings=SMALL_SPACE, **overrides):
    teacher = tiny_teacher(**overrides)
    return teacher, make_space(teacher.denoiser, teacher.family, settings)


def test_every_block_of_the_family_is_there_with_slots_in_the_order_in_which_they_run():
    teacher, space = space_of()
    assert [block.name for block in space.blocks] == teacher.family.block_names(teacher.denoiser)
    mid = space.blocks[2]
    assert [slot.path for slot in mid.slots] == ["resnets.0", "attentions.0", "resnets.1"]
    assert [slot.kind for slot in mid.slots] == ["resnet", "attention", "resnet"]


def test_weights_are_not_needed():
    teacher, space = space_of()
    meta = to_meta(teacher.denoiser)
    assert make_space(meta, teacher.family, SMALL_SPACE) == space


def test_the_smallest_cost_is_the_measured_one():
    teacher, space = space_of()
    student = to_meta(teacher.denoiser)
    for block in space.blocks:
        for slot in block.slots:
            edit = slot.option(block.smallest[slot.path]).edit
            apply_edits(student, {f"{block.name}.{slot.path}": edit})
    inputs = teacher.family.example_inputs(student, 1, torch.device("meta"))
    assert smallest_cost(space) == call_cost(student, kwargs=inputs)


def test_a_lone_convolution_of_little_cost_is_no_slot():
    lone = {"conv", "upsampler"}
    assert lone <= {s.kind for b in space_of()[1].blocks for s in b.slots}
    settings = SMALL_SPACE.model_copy(update={"conv_min_share": 1.0})
    assert not lone & {s.kind for b in space_of(settings)[1].blocks for s in b.slots}


def test_a_low_rank_that_costs_more_than_the_convolution_is_no_option():
    settings = SMALL_SPACE.model_copy(update={"conv_ranks": (1.0, 0.25)})
    for block in space_of(settings)[1].blocks:
        for slot in block.slots:
            assert all(option.cost.macs <= slot.options[0].cost.macs for option in slot.options)


def searched(**settings):
    _, space = space_of(SMALL_SPACE.model_copy(update=settings))
    return {f"{block.name}.{slot.path}" for block in space.blocks for slot in block.slots}


def test_slots_are_included_and_excluded_by_patterns_of_their_names():
    everywhere = searched()
    resnets = {path for path in everywhere if ".resnets." in path}
    assert searched(include=("*.resnets.*",)) == resnets
    assert searched(exclude=("*.resnets.*",)) == everywhere - resnets
    assert searched(include=("mid_block.*",), exclude=("*.attentions.*",)) == {
        "mid_block.resnets.0",
        "mid_block.resnets.1",
    }


@pytest.mark.parametrize("setting", ["include", "exclude"])
def test_a_pattern_that_fits_no_slot_is_named(setting):
    with pytest.raises(UserError, match=rf"space.{setting}: 'middle.\*' fits no slot"):
        searched(**{setting: ("middle.*",)})


@pytest.mark.parametrize("limit", [1, 2, 7, 64, 500])
def test_a_block_of_more_subnets_than_the_limit_is_thinned_to_it(limit):
    settings = SpaceSettings(max_subnets=limit, conv_min_share=0.0)
    _, space = space_of(settings, layers_per_block=2)
    assert all(block.size <= limit for block in space.blocks)
    if limit >= 64:
        assert all(block.size > limit / 10 for block in space.blocks if len(block.slots) > 3)


def slot(path, *macs):
    options = tuple(Option(f"{m}", None, Cost(0, m, m)) for m in macs)
    return SlotSpace(path, "resnet", options)


def macs_of(spaces):
    return {space.path: [option.cost.macs for option in space.options] for space in spaces}


def test_options_that_nearly_equal_another_go_first():
    spaces = [slot("a", 100, 52, 50, 0), slot("b", 100, 50, 0)]
    assert macs_of(thin(spaces, 9)) == {"a": [100, 50, 0], "b": [100, 50, 0]}


def test_the_teachers_own_and_the_cheapest_stay_as_long_as_they_can():
    spaces = [slot("a", 100, 99, 98, 0), slot("b", 10, 9, 1, 0)]
    assert macs_of(thin(spaces, 4)) == {"a": [100, 0], "b": [10, 0]}


def test_then_the_slots_that_save_least_keep_the_teachers_module():
    spaces = [slot("a", 100, 0), slot("b", 10, 0), slot("c", 50, 0)]
    assert macs_of(thin(spaces, 4)) == {"a": [100, 0], "c": [50, 0]}
    assert thin(spaces, 1) == []


def test_a_folded_upsampler_is_thinned_last():
    own, second, *others = slot("a", 100, 44, 40, 0).options
    options = (own, replace(second, name="folded"), *others)
    spaces = [replace(slot("a"), options=options), slot("b", 100, 60, 0)]
    assert macs_of(thin(spaces, 9))["a"] == [100, 44, 0]
    assert macs_of(thin(spaces, 6)) == {"a": [100, 44, 0], "b": [100, 0]}
    assert macs_of(thin(spaces, 4)) == {"a": [100, 0], "b": [100, 0]}


def test_a_rank_that_costs_more_than_the_folded_upsampler_is_no_option():
    _, space = space_of(SMALL_SPACE.model_copy(update={"conv_ranks": (0.9, 0.25)}))
    upsamplers = [s for b in space.blocks for s in b.slots if s.kind == "upsampler"]
    assert upsamplers
    for each in upsamplers:
        assert [option.name for option in each.options][:2] == ["teacher", "folded"]


def test_a_block_within_the_limit_stays_whole():
    spaces = [slot("a", 100, 99, 0)]
    assert thin(spaces, 3) == spaces


def test_a_space_without_blocks_costs_what_the_teacher_costs():
    assert smallest_cost(Space(Cost(1, 2, 3), (), Cost(1, 2, 3))) == Cost(1, 2, 3)


def architectures_of(space):
    """Every architecture of a small space, with the rows that go together."""
    groups = [
        [
            {
                block.name: subnet_at(block, block.choices()[row])
                for block, row in zip(blocks, rows, strict=True)
            }
            for rows in together(blocks, {block.name: block.choices() for block in blocks})
        ]
        for blocks in tied(space.blocks)
    ]
    for parts in product(*groups):
        yield Architecture(dict(item for part in parts for item in part.items()))


def test_a_model_without_a_stock_space_is_shown_the_preset_that_has_one_for_it():
    with pytest.raises(UserError, match=r"not for DiTTransformer2DModel; use 'full'$"):
        make_space(tiny_dit().transformer, dit.FAMILY, SpaceSettings(preset="stock"))


def test_every_architecture_of_the_stock_preset_has_a_stock_config():
    teacher, space = space_of(SpaceSettings(preset="stock"), layers_per_block=2)
    config = teacher.denoiser.config
    found = list(architectures_of(space))
    assert all(stock_config(config, each.edits(space)) is not None for each in found)
    sizes = {block.name: block.size for block in space.blocks}
    assert sizes["mid_block"] == 3  # as it is, without attention, not there
    # Attention of a level, all or none; one layer or two.
    assert sizes["down_blocks.1"] == sizes["up_blocks.0"] == 4
    assert sizes["down_blocks.0"] == sizes["up_blocks.1"] == 2
    # All levels have as many layers.
    assert len(found) == architectures(space.blocks) == 3 * 2 * 2 * 2


def test_every_architecture_of_the_stock_preset_of_a_model_of_texts_has_a_stock_config():
    unet = tiny_condition_unet(layers_per_block=2, transformer_layers_per_block=(1, 2))
    space = make_space(unet, unet2d_condition.FAMILY, SpaceSettings(preset="stock"))
    found = list(architectures_of(space))
    for each in found:
        assert stock_config(unet.config, each.edits(space), UNet2DConditionModel) is not None
    # The lower level down and up, by layers and the depth of the first transformer down, which the
    # middle's is; 0 without attention. The middle: of that depth, of a single ResNet layer, none.
    up = {2: 2**3 + 1, 1: 2**2 + 1}
    down = {(2, 2): 2, (2, 1): 2, (2, 0): 1, (1, 2): 1, (1, 1): 1, (1, 0): 1}
    middles = {2: 3, 1: 3, 0: 4}
    lower = sum(count * up[layers] * middles[depth] for (layers, depth), count in down.items())
    assert len(found) == architectures(space.blocks) == 2 * lower


OTHERS = {
    "resnet_widths": (0.5,),
    "resnet_kernels": (5,),
    "resnet_skip": False,
    "attention_heads": (0.25,),
    "feed_forward_widths": (0.75,),
    "modulation_ranks": (0.5,),
    "transformer_layers": (0.75,),
    "transformer_skip": False,
    "conv_ranks": (0.1,),
    "conv_min_share": 0.0,
    "multiple_of": 8,
}
"""Values that make another space where they are read."""


@pytest.mark.parametrize("preset", UNREAD)
def test_what_a_preset_is_said_not_to_read_changes_nothing_and_all_else_does(preset):
    unet = tiny_condition_unet(transformer_layers_per_block=4)
    given = SpaceSettings(preset=preset)
    space = make_space(unet, unet2d_condition.FAMILY, given)
    for name in UNREAD[preset]:
        changed = given.model_copy(update={name: OTHERS[name]})
        assert make_space(unet, unet2d_condition.FAMILY, changed) == space, name
    for name in {"transformer_layers", "transformer_skip"} - set(UNREAD[preset]):
        changed = given.model_copy(update={name: OTHERS[name]})
        assert make_space(unet, unet2d_condition.FAMILY, changed) != space, name


def test_what_no_subnet_of_the_stock_preset_has_is_no_option():
    # A middle that scales its output cannot be left out, but its transformer can be less deep.
    unet = tiny_condition_unet(mid_block_scale_factor=1.4, transformer_layers_per_block=(1, 2))
    space = make_space(unet, unet2d_condition.FAMILY, SpaceSettings(preset="stock"))
    (mid,) = [block for block in space.blocks if block.name == "mid_block"]
    assert [option.name for slot in mid.slots for option in slot.options] == ["teacher", "layers=1"]
    assert mid.only == ((0,), (1,))


def test_a_model_of_texts_with_one_layer_a_block_is_in_the_stock_preset():
    """BK-SDM-Base (Kim et al., arXiv 2305.15798), and Small."""
    unet = tiny_condition_unet(
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    space = make_space(unet, unet2d_condition.FAMILY, SpaceSettings(preset="stock"))
    configs = [
        stock_config(unet.config, each.edits(space), UNet2DConditionModel)
        for each in architectures_of(space)
    ]
    base = {**unet.config, "layers_per_block": [1, 1, 1]}
    for wanted in (base, {**base, "mid_block_type": None}):
        assert sum(config == public(wanted) for config in configs) == 1


def public(config):
    return {name: value for name, value in config.items() if not name.startswith("_")}
