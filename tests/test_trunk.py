"""A narrower trunk: which channels stay, the teacher with them, and what its blocks are given."""

import copy
import gc
import weakref

import pytest
import torch

from diffnas import trunk
from diffnas.architecture import Architecture
from diffnas.blocks import Call, capture, tensors
from diffnas.families import unet2d_condition
from diffnas.families.batches import training_batch
from diffnas.losses import block_loss, block_target
from diffnas.measure.cost import call_cost
from diffnas.retrain import losses_of
from diffnas.rng import generator
from diffnas.settings import RetrainSettings
from diffnas.space import make_space
from diffnas.student.modeling import trunk_groups
from diffnas.student.stock import as_model
from diffnas.supernet import Supernet
from diffnas.trunk import kept_channels, make_trunk
from tests.engine import SMALL_SPACE, first_channels, teacher_of, tiny_data, tiny_teacher
from tests.models import VARIANTS, tiny_stable_diffusion

EQUAL = {"block_out_channels": (16, 16)}
"""Levels of one width: two groups of a stream are one of a norm on two streams."""

EQUAL_VARIANTS = {
    "as it is": {},
    "two layers": {"layers_per_block": 2},
    "no middle": {"mid_block_type": None},
    "resampled by resnets": VARIANTS["resampled by resnets"],
    "three levels": {
        "block_out_channels": (16, 16, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
}
READERS = ("conv1.weight", "shortcut.weight", "q.weight", "k.weight", "v.weight", "conv.weight")


def inputs_of(teacher, count=3):
    inputs = teacher.family.example_inputs(teacher.denoiser, count, torch.device("cpu"))
    inputs["sample"] = torch.randn(inputs["sample"].shape, generator=generator(0, "test", 0))
    inputs["timestep"] = torch.tensor([3, 700, 40][:count])
    return inputs


def narrow(groups, settings=SMALL_SPACE, **overrides):
    """Teacher, trunk and supernet of so many groups."""
    teacher = tiny_teacher(**overrides)
    of = trunk_groups(teacher.denoiser)
    settings = settings.model_copy(update={"trunk": groups / of})
    space = make_space(teacher.denoiser, teacher.family, settings)
    made = make_trunk(teacher, kept_channels(teacher, tiny_data(), groups, batch_size=64, seed=0))
    return teacher, made, Supernet(teacher, space, made)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_all_groups_it_is_the_teacher(variant):
    teacher = tiny_teacher(**VARIANTS[variant])
    inputs = inputs_of(teacher)
    made = make_trunk(teacher, first_channels(teacher, trunk_groups(teacher.denoiser)))
    expected, calls = capture(teacher.denoiser, list(made.streams), inputs)
    assert torch.equal(made.denoiser(**inputs).sample, expected.sample)
    for name, call in made.cut(calls).items():
        for cut, whole in zip(tensors(call.output), tensors(calls[name].output), strict=True):
            assert torch.equal(cut, whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_of_the_narrowed_teacher_take_and_give_what_is_left_of_the_teachers_calls(variant):
    teacher = tiny_teacher(**VARIANTS[variant])
    made = make_trunk(teacher, first_channels(teacher, trunk_groups(teacher.denoiser) // 2))
    _, calls = capture(teacher.denoiser, list(made.streams), inputs_of(teacher))
    for name, call in made.cut(calls).items():
        given = made.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        expected = [tensor.shape for tensor in tensors(call.output)]
        assert [tensor.shape for tensor in tensors(given)] == expected
        whole = [tensor.shape[1] for tensor in tensors(calls[name].output)]
        assert [2 * shape[1] for shape in expected] == whole


@torch.no_grad()
@pytest.mark.parametrize("variant", sorted(EQUAL_VARIANTS))
def test_channels_that_nothing_reads_can_be_left_out_without_a_trace(variant):
    teacher = tiny_teacher(**{**EQUAL, **EQUAL_VARIANTS[variant]})
    streams = teacher.family.streams(teacher.denoiser)
    # Halves that differ from stream to stream, so that none can stand for another.
    names = sorted({each.writes for each in streams.values() if each.writes is not None})
    kept = {name: torch.arange(8) + 8 * (row % 2) for row, name in enumerate(names)}
    for path, ports in streams.items():
        module = teacher.denoiser.get_submodule(path)
        for name, parameter in module.named_parameters():
            if name.endswith(READERS) or (path == "conv_out" and name == "weight"):
                for stream, part in zip(ports.reads, parameter.split(16, dim=1), strict=True):
                    part[:, 8 - int(kept[stream][0]) :][:, :8] = 0
    made = make_trunk(teacher, kept)
    inputs = inputs_of(teacher)
    expected = teacher.denoiser(**inputs).sample
    torch.testing.assert_close(made.denoiser(**inputs).sample, expected)


@torch.no_grad()
def test_images_that_no_level_halves_evenly_have_one_too():
    # Upsamplers are then told a size, which is a tuple of its own kind.
    pipeline = tiny_stable_diffusion(sample_size=9)
    model = teacher_of(pipeline, unet2d_condition.FAMILY)
    made = make_trunk(model, first_channels(model, trunk_groups(model.denoiser) // 2))
    inputs = model.family.example_inputs(model.denoiser, 2, torch.device("cpu"))
    _, calls = capture(model.denoiser, list(made.streams), inputs)
    for name, call in made.cut(calls).items():
        given = made.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        shapes = [tensor.shape for tensor in tensors(call.output)]
        assert [tensor.shape for tensor in tensors(given)] == shapes


def test_a_block_is_given_the_very_channels_that_are_kept():
    teacher = tiny_teacher()
    kept = kept_channels(teacher, tiny_data(), 2, batch_size=64, seed=0)
    made = make_trunk(teacher, kept)
    _, calls = capture(teacher.denoiser, ["up_blocks.0"], inputs_of(teacher))
    (hidden, skips, temb), whole = made.cut(calls)["up_blocks.0"].args, calls["up_blocks.0"].args
    assert torch.equal(hidden, whole[0][:, kept["down 1"]])
    assert torch.equal(skips[0], whole[1][0][:, kept["down 0"]])
    assert torch.equal(skips[1], whole[1][1][:, kept["down 1"]])
    assert torch.equal(temb, whole[2])


def test_what_is_cut_and_filled_goes_with_the_last_one_who_holds_it():
    teacher, made, _ = narrow(2)
    _, calls = capture(teacher.denoiser, list(made.streams), inputs_of(teacher))
    gc.disable()  # what stands in a cycle would stay for long
    try:
        cut = made.cut(calls)
        filled = [made.filled(name, calls[name], call) for name, call in cut.items()]
        given = [filled, [[call.args, call.output] for call in cut.values()]]
        whole = {id(each) for c in calls.values() for each in tensors((c.args, c.kwargs))}
        held = [weakref.ref(each) for each in tensors(given) if id(each) not in whole]
        assert held
        del cut, filled, given
        assert not any(each() is not None for each in held)
    finally:
        gc.enable()


def test_an_output_that_is_also_a_skip_stays_one_tensor():
    teacher = tiny_teacher()
    made = make_trunk(teacher, first_channels(teacher, 2))
    _, calls = capture(teacher.denoiser, ["down_blocks.1"], inputs_of(teacher))
    hidden, skips = made.cut(calls)["down_blocks.1"].output
    assert hidden is skips[-1]


def test_what_a_left_out_layer_hands_on_is_filled_from_the_teachers_output_in_each_place():
    teacher = tiny_teacher(layers_per_block=2)
    made = make_trunk(teacher, first_channels(teacher, 2))
    _, calls = capture(teacher.denoiser, ["down_blocks.0"], inputs_of(teacher))
    whole = calls["down_blocks.0"]
    cut = made.cut(calls)["down_blocks.0"]
    hidden, (first, _, *rest) = cut.output
    # The second layer is the identity: it hands on the very tensor that the first one made.
    output = (hidden, (first, first, *rest))
    _, skips = made.filled("down_blocks.0", whole, Call(cut.args, cut.kwargs, output))
    left = torch.tensor([c for c in range(16) if c not in made.kept["down 0"]])
    for skip, theirs in zip(skips, whole.output[1], strict=True):
        assert torch.equal(skip[:, left], theirs[:, left])


def test_the_least_important_group_goes_first():
    teacher = tiny_teacher(**EQUAL)
    with torch.no_grad():
        last = teacher.denoiser.up_blocks[1].resnets[1]  # beside the head, all that reads it
        for reader in (teacher.denoiser.conv_out, last.conv1, last.conv_shortcut):
            reader.weight[:, 8:12] = 0
    kept = kept_channels(teacher, tiny_data(), 3, batch_size=64, seed=0)
    assert kept["up 0"].tolist() == [*range(8), *range(12, 16)]
    assert all(len(channels) == 12 for channels in kept.values())


def test_the_same_seed_keeps_the_same_channels_and_changes_nothing_of_the_teacher():
    teacher = tiny_teacher()
    before = copy.deepcopy(teacher.denoiser.state_dict())
    one, other = (kept_channels(teacher, tiny_data(), 2, batch_size=64, seed=4) for _ in range(2))
    assert all(torch.equal(one[stream], other[stream]) for stream in one)
    assert not any(parameter.requires_grad for parameter in teacher.denoiser.parameters())
    after = teacher.denoiser.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not teacher.denoiser(**inputs_of(teacher)).sample.requires_grad


def test_layers_that_add_to_what_they_read_keep_its_channels():
    streams = tiny_teacher(**EQUAL).family.streams(tiny_teacher(**EQUAL).denoiser)
    assert streams["down_blocks.1.resnets.0"].writes == "down 0"
    streams = tiny_teacher().family.streams(tiny_teacher().denoiser)
    assert streams["down_blocks.1.resnets.0"].writes == "down 1"


@pytest.mark.parametrize("groups", [1, 3])
def test_a_student_is_built_as_foretold_and_is_the_model_that_is_saved(groups):
    teacher, _, net = narrow(groups)
    for choice in ("teacher", "smallest"):
        chosen = Architecture({b.name: getattr(b, choice) for b in net.space.blocks})
        built = net.build(chosen)
        model = as_model(teacher.denoiser.config, chosen.edits(net.space), built.state_dict())
        inputs = inputs_of(teacher)
        assert torch.equal(model(**inputs).sample, built(**inputs).sample)
        example = teacher.family.example_inputs(model, 1, torch.device("cpu"))
        assert call_cost(model, kwargs=example) == net.space.cost_of(chosen)
        assert trunk_groups(model) == groups


def test_a_student_with_a_narrower_trunk_can_be_searched_again():
    teacher, _, net = narrow(3)
    chosen = Architecture({b.name: b.smallest for b in net.space.blocks})
    first = as_model(
        teacher.denoiser.config, chosen.edits(net.space), net.build(chosen).state_dict()
    )
    teacher.pipeline.unet = first
    again = type(teacher)("student", teacher.pipeline, first, teacher.family)
    made = make_trunk(again, kept_channels(again, tiny_data(), 2, batch_size=64, seed=0))
    settings = SMALL_SPACE.model_copy(update={"trunk": 2 / 3})
    net = Supernet(again, make_space(first, again.family, settings), made)
    chosen = net.space.own
    built = net.build(chosen)
    model = as_model(first.config, chosen.edits(net.space), built.state_dict())
    inputs = inputs_of(again)
    assert torch.equal(model(**inputs).sample, built(**inputs).sample)
    assert trunk_groups(model) == 2


def test_block_losses_of_retraining_are_those_of_the_supernet():
    teacher, made, net = narrow(2)
    own = net.space.own
    images = torch.rand(4, 1, 8, 8, generator=generator(0, "test", 0))
    part = training_batch(teacher, images, {}, generator(0, "test", 1))
    found = losses_of(
        net.build(own),
        teacher.denoiser,
        teacher.family,
        part,
        settings=RetrainSettings(features="teacher", task_weight=1.0, output_weight=0.25),
        weight=0.0,
        trunk=made,
    )
    expected = torch.zeros(())
    for name, call in net.calls(list(net.blocks), part.inputs).items():
        given = net.blocks[name](*call.args, **call.kwargs)
        expected += block_loss(given, block_target(call, "residual")).detach()
    assert float(found["blocks"]) == pytest.approx(float(expected), rel=1e-5)
    assert expected > 0


@pytest.mark.parametrize("batch_size", [4, 16])
def test_importance_is_taken_over_so_many_images_in_batches_of_any_size(monkeypatch, batch_size):
    monkeypatch.setattr(trunk, "IMAGES", 32)
    teacher, sizes = tiny_teacher(), []
    handle = teacher.denoiser.register_forward_hook(
        lambda _, args, kwargs, output: sizes.append(len(output.sample)), with_kwargs=True
    )
    kept_channels(teacher, tiny_data(), 2, batch_size=batch_size, seed=0)
    handle.remove()
    assert sizes == [batch_size] * (32 // batch_size)


def test_importance_lets_go_of_a_batch_before_it_takes_the_next(monkeypatch):
    monkeypatch.setattr(trunk, "IMAGES", 64)
    teacher, made, left = tiny_teacher(), [], []

    def note(module, args, output):
        left.extend(ref for ref in made if ref() is not None)
        made.append(weakref.ref(output))

    handle = teacher.denoiser.conv_in.register_forward_hook(note)
    kept_channels(teacher, tiny_data(), 2, batch_size=16, seed=0)
    handle.remove()
    assert len(made) == 4
    assert not left


def test_a_space_and_a_supernet_have_the_same_trunk():
    teacher, made, net = narrow(2)
    with pytest.raises(ValueError, match="the space's trunk is"):
        Supernet(teacher, net.space)
    whole = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    with pytest.raises(ValueError, match="the space's trunk is None"):
        Supernet(teacher, whole, made)
