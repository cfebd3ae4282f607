"""What every family promises: its students are what the search trained."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from diffnas import slots
from diffnas.architecture import Architecture, joined
from diffnas.blocks import capture
from diffnas.families import Batch, Teacher
from diffnas.measure.meta import to_meta
from diffnas.patched_teacher import PatchedTeacher
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import edit_module
from diffnas.student.stock import as_model, stock_class
from diffnas.supernet import Supernet
from tests.families.kinds import KINDS, inputs_of, teacher


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_shared_forward_of_every_option_is_the_plain_modules(kind):
    model = teacher(kind)
    space = make_space(model.denoiser, model.family, SpaceSettings(max_subnets=10**9))
    found = {joined(block.name, slot.path): slot for block in space.blocks for slot in block.slots}
    _, calls = capture(model.denoiser, list(found), inputs_of(model))
    for path, slot in found.items():
        module, call = model.denoiser.get_submodule(path), calls[path]
        shared = slots.SharedSlot(module, to_meta(module), slot)
        given = shared(*call.args, **call.kwargs)
        torch.testing.assert_close(given, call.output, msg=path)
        for option in slot.options[1:]:
            plain = edit_module(module, option.edit)
            plain.load_state_dict(shared.weights(option.name))
            shared.active = option.name
            torch.testing.assert_close(
                shared(*call.args, **call.kwargs),
                plain(*call.args, **call.kwargs),
                msg=f"{path} {option.name}",
            )


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_its_supernets_subnet(kind, tmp_path):
    model = teacher(kind)
    space = make_space(model.denoiser, model.family, SpaceSettings())
    net = Supernet(model, space)
    random = np.random.default_rng(0)
    chosen = Architecture(
        {
            block.name: {slot.path: random.choice(slot.options).name for slot in block.slots}
            for block in space.blocks
        }
    )
    built = net.build(chosen)
    denoiser: Any = model.denoiser
    made = as_model(denoiser.config, chosen.edits(space), built.state_dict(), stock_class(denoiser))
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    inputs = inputs_of(model)
    size = model.family.sample_shape(denoiser)[1:]
    expected = model.family.prediction(built(**inputs), size)
    torch.testing.assert_close(model.family.prediction(again(**inputs), size), expected)
    assert sum(p.numel() for p in again.parameters()) == chosen_cost(space, chosen)


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", {family.name: kind for kind, (_, family) in KINDS.items()}.values()
)
def test_an_error_at_the_output_is_that_of_the_model_with_the_block_in_its_place(kind):
    model = teacher(kind)
    few = {"resnet_widths": (), "attention_heads": (0.5,), "feed_forward_widths": (0.5,)}
    space = make_space(model.denoiser, model.family, SpaceSettings(**few, conv_ranks=()))
    net, inputs, random = Supernet(model, space), inputs_of(model), torch.Generator().manual_seed(0)
    target = torch.zeros(2, *model.family.sample_shape(model.denoiser))
    batch = Batch(inputs, target)
    wanted = model.family.prediction(model.denoiser(**inputs), batch.size)
    for block in space.blocks:
        # As training would leave it.
        for weight in net.blocks[block.name].parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=random))
        whole = copy.deepcopy(model.denoiser)
        weights = net.blocks[block.name].weights(block.teacher)
        whole.get_submodule(block.name).load_state_dict(weights)
        made = model.family.prediction(whole(**inputs), batch.size)
        expected = batch.distance(made[:, : target.shape[1]], wanted[:, : target.shape[1]])
        own = np.zeros((1, len(block.slots)), dtype=np.int16)
        (found,) = PatchedTeacher(net).errors(block, own, [batch])
        assert found == pytest.approx(float(expected), rel=1e-4), block.name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_students_student_has_the_edits_of_both(kind):
    first = teacher(kind)
    few = SpaceSettings(
        resnet_widths=(0.5,), attention_heads=(0.5,), feed_forward_widths=(0.5,), conv_ranks=()
    )
    for wanted in ("modulation=", "heads=1", "width="):
        space = make_space(first.denoiser, first.family, few)
        # An option that changes such a part alone, wherever there is one.
        chosen = Architecture(
            {
                block.name: {slot.path: part_of(slot, wanted) for slot in block.slots}
                for block in space.blocks
            }
        )
        if not chosen.edits(space):
            continue
        built = Supernet(first, space).build(chosen)
        denoiser: Any = first.denoiser
        edits = chosen.edits(space)
        made = as_model(denoiser.config, edits, built.state_dict(), stock_class(denoiser))
        inputs = inputs_of(first)
        given, expected = made(**inputs), built(**inputs)
        size = first.family.sample_shape(denoiser)[1:]
        torch.testing.assert_close(
            first.family.prediction(given, size), first.family.prediction(expected, size)
        )
        first = Teacher(kind, first.pipeline, made, first.family)


def part_of(slot: Any, wanted: str) -> str:
    """An option that changes that part alone; the teacher's own where there is none."""
    names = [option.name for option in slot.options if " " not in option.name]
    return next((name for name in names if name.startswith(wanted)), slot.options[0].name)


def chosen_cost(space: Any, chosen: Architecture) -> int:
    total = space.base
    for block in space.blocks:
        total = total + block.cost_of(chosen.blocks[block.name]) - block.cost
    return int(total.params)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_projections_of_their_own_for_modulation_have_options_of_it(kind):
    model = teacher(kind)
    names = model.family.block_names(model.denoiser)
    having = {
        block
        for block in names
        for _, module, slot in slots.find(model.denoiser.get_submodule(block))
        if any("modulation=" in name for name, _ in slot.edits(module, SpaceSettings()))
    }
    assert having == (set(names) if model.family.name in ("dit", "sd3", "flux") else set())


def test_a_transformers_first_layer_cannot_be_left_out_as_the_head_uses_it():
    model = teacher("classes, transformer")
    first, *others = make_space(model.denoiser, model.family, SpaceSettings()).blocks
    assert "skip" not in [option.name for option in first.slots[0].options]
    assert all("skip" in [o.name for o in block.slots[0].options] for block in others)
