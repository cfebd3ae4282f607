"""Every option of every slot, over the shapes that a UNet's configuration can give a layer."""

import copy
from functools import cache

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D

from diffnas import slots
from diffnas.blocks import capture
from diffnas.measure.meta import to_meta
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import edit_module
from diffnas.supernet import BlockSupernet
from tests.engine import tiny_teacher
from tests.models import VARIANTS, tiny_unet

EVERYTHING = SpaceSettings(
    resnet_widths=(1.5, 0.5),
    resnet_kernels=(1, 5),
    attention_heads=(0.5, 0.0),
    conv_ranks=(0.5,),
    conv_min_share=0.0,
    max_subnets=10**12,
)


def slots_of(variant, settings=EVERYTHING):
    """(path, teacher's module, shared slot, its space, the teacher's call) of every slot."""
    for *_, shared, slot, _ in (found := _slots_of(variant, settings)):
        shared.active = slot.options[0].name
    return found


@cache
def _slots_of(variant, settings):
    teacher = tiny_teacher(**VARIANTS[variant])
    space = make_space(teacher.denoiser, teacher.family, settings)
    inputs = teacher.family.example_inputs(teacher.denoiser, 2, torch.device("cpu"))
    torch.manual_seed(1)
    inputs["sample"] = torch.randn_like(inputs["sample"])
    inputs["timestep"] = torch.tensor([3, 700])
    found = {f"{b.name}.{s.path}": s for b in space.blocks for s in b.slots}
    _, calls = capture(teacher.denoiser, list(found), inputs)
    modules = {path: teacher.denoiser.get_submodule(path) for path in found}
    return [
        (
            path,
            modules[path],
            slots.SharedSlot(modules[path], to_meta(modules[path]), slot),
            slot,
            calls[path],
        )
        for path, slot in found.items()
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shared_forward_of_an_option_is_the_plain_modules(variant):
    for path, module, shared, slot, call in slots_of(variant):
        for option in slot.options[1:]:
            plain = edit_module(module, option.edit)
            plain.load_state_dict(shared.weights(option.name))
            shared.active = option.name
            expected = plain(*call.args, **call.kwargs)
            given = shared(*call.args, **call.kwargs)
            torch.testing.assert_close(given, expected, msg=f"{path} {option.name}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_teachers_option_gives_the_teachers_output(variant):
    for path, _, shared, _, call in slots_of(variant):
        torch.testing.assert_close(shared(*call.args, **call.kwargs), call.output, msg=path)


@pytest.mark.parametrize("variant", ["as it is", "two layers"])
def test_a_folded_upsampler_gives_the_teachers_output_for_less(variant):
    found = [each for each in slots_of(variant) if each[3].kind == "upsampler"]
    for path, _, shared, slot, call in found:
        shared.active = "folded"
        torch.testing.assert_close(shared(*call.args, **call.kwargs), call.output, msg=path)
        assert slot.option("folded").cost.macs < slot.option("teacher").cost.macs
    assert found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wider_layer_starts_as_the_teachers(variant):
    wider = 0
    for path, module, shared, slot, call in slots_of(variant):
        for option in slot.options[1:]:
            if option.edit.get("width", 0) > getattr(module, "out_channels", 0):
                shared.active = option.name
                given = shared(*call.args, **call.kwargs)
                torch.testing.assert_close(given, call.output, msg=f"{path} {option.name}")
                wider += 1
    assert wider


def test_training_a_wider_layer_reaches_the_channels_that_it_adds():
    _, _, shared, slot, call = next(found for found in slots_of("as it is") if wider(found[3]))
    shared.active = wider(slot).name
    shared(*call.args, **call.kwargs).square().mean().backward()
    width = shared.shared.width
    assert shared.shared.layer.conv2.weight.grad[:, width:].abs().sum() > 0


def wider(slot):
    """The option of the layer with more channels than the teacher's, if there is one."""
    return next((option for option in slot.options[1:] if option.name == "width=24"), None)


def test_options_of_every_kind_occur():
    kinds = {kind for _, _, _, slot, _ in slots_of("as it is") for kind in [slot.kind]}
    assert kinds == {"resnet", "attention", "upsampler", "conv"}
    names = {o.name for _, _, _, slot, _ in slots_of("as it is") for o in slot.options}
    assert {"teacher", "skip", "kernel=1", "kernel=5", "width=8", "heads=2"} <= names
    assert "width=24" in names  # wider than the teacher's 16
    assert any(name.startswith("rank=") for name in names)


def test_a_skipped_layer_gives_what_it_gave_with_a_branch_of_zeros():
    for variant in ("as it is", "scaled output", "resnet blocks that resample"):
        for path, module, shared, slot, call in slots_of(variant):
            if "skip" not in {option.name for option in slot.options}:
                continue
            silent = copy.deepcopy(module)
            last = silent.conv2 if isinstance(silent, ResnetBlock2D) else silent.to_out[0]
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
            shared.active = "skip"
            expected = silent(*call.args, **call.kwargs)
            torch.testing.assert_close(shared(*call.args, **call.kwargs), expected, msg=path)


@pytest.mark.parametrize("multiple_of", [1, 4, 8, 16])
def test_widths_are_whole_norm_groups_and_multiples(multiple_of):
    settings = EVERYTHING.model_copy(update={"multiple_of": multiple_of})
    narrower = 0
    for _, module, _, slot, _ in slots_of("as it is", settings):
        for option in slot.options:
            if option.name.startswith("width="):
                size = module.norm2.num_channels // module.norm2.num_groups
                assert option.edit["width"] == option.edit["groups"] * size
                assert option.edit["width"] % multiple_of == 0
                narrower += 1
    assert narrower


def test_options_run_from_the_teachers_own_down_to_the_cheapest():
    for _, _, _, slot, _ in slots_of("two layers"):
        assert slot.options[0].name == "teacher"
        assert slot.options[0].edit is None
        costs = [option.cost.macs for option in slot.options[1:]]
        assert costs == sorted(costs, reverse=True)


def test_every_options_cost_is_that_of_its_plain_module():
    for path, module, _, slot, _ in slots_of("scale and shift"):
        for option in slot.options:
            plain = module if option.edit is None else edit_module(module, option.edit)
            params = sum(parameter.numel() for parameter in plain.parameters())
            assert option.cost.params == params, (path, option.name)


def test_the_paper_preset_has_kernels_alone():
    names = {
        option.name
        for _, _, _, slot, _ in slots_of("as it is", SpaceSettings(preset="paper"))
        for option in slot.options
    }
    assert names == {"teacher", "kernel=1", "kernel=5"}


def test_the_stock_preset_only_leaves_layers_out():
    found = list(slots_of("two layers", SpaceSettings(preset="stock")))
    names = {o.name for _, _, _, slot, _ in found for o in slot.options}
    assert names == {"teacher", "skip", "drop"}


def test_a_dropped_layer_gives_what_came_up_without_the_skip():
    dropped = 0
    for path, module, shared, slot, call in slots_of("two layers", SpaceSettings(preset="stock")):
        if "drop" in {option.name for option in slot.options}:
            shared.active = "drop"
            given = shared(*call.args, **call.kwargs)
            assert torch.equal(given, call.args[0][:, : module.conv2.out_channels]), path
            dropped += 1
    assert dropped == 2  # the second of three, at either level


def test_an_attention_layer_that_normalises_queries_and_keys_is_left_alone():
    plain = Attention(query_dim=8, heads=2, dim_head=4)
    normed = Attention(query_dim=8, heads=2, dim_head=4, qk_norm="layer_norm")
    block = torch.nn.ModuleDict({"plain": plain, "normed": normed})
    assert [path for path, _, _ in slots.find(block)] == ["plain"]


def test_a_resnet_layer_whose_convolutions_were_factored_is_left_alone():
    wide = {"kind": "resnet", "width": 16, "groups": 4, "kernel": 5}
    factored = {"kind": "conv", "rank": 2}
    for name in ("conv1", "conv2"):
        layer = edit_module(tiny_unet().down_blocks[0].resnets[0], wide)
        setattr(layer, name, edit_module(layer.get_submodule(name), factored))
        assert not slots.resnet.matches(layer)


def test_a_layer_in_training_mode_hands_its_mode_on_to_no_option():
    teacher = tiny_teacher(dropout=0.5)
    teacher.denoiser.train()
    space = make_space(teacher.denoiser, teacher.family, EVERYTHING)
    block = BlockSupernet(teacher.denoiser.mid_block, space.blocks[2])
    sample, time = torch.randn(2, 32, 4, 4), torch.randn(2, 64)
    for subnet in (space.blocks[2].teacher, space.blocks[2].smallest):
        block.activate(subnet)
        assert torch.equal(block(sample, time), block(sample, time))


def test_ranks_are_multiples_too():
    settings = EVERYTHING.model_copy(update={"multiple_of": 8, "conv_ranks": (0.3,)})
    ranks = {
        option.edit["rank"]
        for *_, slot, _ in slots_of("as it is", settings)
        for option in slot.options
        if option.edit and "rank" in option.edit
    }
    assert ranks
    assert all(rank % 8 == 0 for rank in ranks)
