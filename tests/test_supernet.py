import copy
from functools import cache

import pytest
import torch

from diffnas import training
from diffnas.architecture import Architecture
from diffnas.blocks import capture
from diffnas.checkpoint import load_state
from diffnas.errors import RunError
from diffnas.measure.cost import call_cost
from diffnas.optimizer import Optimizer
from diffnas.rng import generator
from diffnas.settings import SupernetSettings
from diffnas.student.stock import as_model
from diffnas.supernet_training import (
    BlockTraining,
    fit,
    groups,
    random_subnet,
    subnets_of_step,
    train_block,
)
from tests.engine import SMALL_SPACE, assert_same, tiny_data, tiny_supernet

SETTINGS = SupernetSettings(steps=6, batch_size=4, learning_rate=1e-3)
FULL = SMALL_SPACE.model_copy(update={"resnet_widths": (0.75, 0.5), "resnet_kernels": (1, 5)})


@cache
def untrained():
    return tiny_supernet(FULL, layers_per_block=2)


def fresh():
    """An untrained supernet of its own to train."""
    return copy.deepcopy(tiny())


@cache
def tiny():
    return tiny_supernet()


def teacher_inputs(supernet, count=2):
    teacher = supernet.teacher
    inputs = teacher.family.example_inputs(teacher.denoiser, count, torch.device("cpu"))
    return inputs | {"sample": torch.randn(inputs["sample"].shape), "timestep": torch.arange(count)}


def random_architecture(space, seed):
    random = generator(seed, "test", 0)
    return Architecture({block.name: random_subnet(block, random) for block in space.blocks})


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_built_student_gives_what_the_supernet_gives(seed):
    supernet = untrained()
    architecture = random_architecture(supernet.space, seed)
    _, calls = capture(supernet.teacher.denoiser, list(supernet.blocks), teacher_inputs(supernet))
    built = supernet.build(architecture)
    for name, block in supernet.blocks.items():
        block.activate(architecture.blocks[name])
        call = calls[name]
        expected = block(*call.args, **call.kwargs)
        given = built.get_submodule(name)(*call.args, **call.kwargs)
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_the_student_as_a_model_is_the_built_one(seed):
    supernet = untrained()
    architecture = random_architecture(supernet.space, seed)
    built = supernet.build(architecture)
    edits = architecture.edits(supernet.space)
    model = as_model(supernet.teacher.denoiser.config, edits, built.state_dict())
    inputs = teacher_inputs(supernet)
    torch.testing.assert_close(model(**inputs).sample, built(**inputs).sample)


@torch.no_grad()
def test_the_teachers_subnets_are_the_teacher():
    supernet = untrained()
    built = supernet.build(Architecture({b.name: b.teacher for b in supernet.space.blocks}))
    inputs = teacher_inputs(supernet)
    torch.testing.assert_close(built(**inputs).sample, supernet.teacher.denoiser(**inputs).sample)


@pytest.mark.parametrize("seed", range(3))
def test_the_foretold_cost_is_the_measured_one(seed):
    supernet = untrained()
    architecture = random_architecture(supernet.space, seed)
    inputs = teacher_inputs(supernet, 1)
    measured = call_cost(supernet.build(architecture), kwargs=inputs)
    assert supernet.space.cost_of(architecture) == measured


def test_training_leaves_the_teacher_alone():
    supernet = fresh()
    before = copy.deepcopy(supernet.teacher.denoiser.state_dict())
    fit(supernet, tiny_data(), SETTINGS)
    assert_same(supernet.teacher.denoiser.state_dict(), before)


def test_a_students_weights_are_its_own():
    supernet = fresh()
    student = supernet.build(random_architecture(supernet.space, 0))
    before = copy.deepcopy(supernet.state_dict())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert_same(supernet.state_dict(), before)


def test_weights_go_from_one_supernet_to_another():
    trained, other = fresh(), fresh()
    fit(trained, tiny_data(), SETTINGS)
    other.load_state_dict(trained.state_dict())
    assert_same(other.state_dict(), trained.state_dict())


def test_a_first_step_changes_the_active_slices_only():
    supernet = tiny_supernet()
    block = supernet.blocks["mid_block"]
    subnet = {
        slot.path: next(o.name for o in slot.options if o.name.startswith(("width", "heads")))
        for slot in block.space.slots
    }
    _, calls = capture(supernet.teacher.denoiser, ["mid_block"], teacher_inputs(supernet))
    before = {
        name: value.detach().clone() for name, value in block.weights(block.space.teacher).items()
    }
    optimizer = Optimizer(list(block.parameters()), 0.0)
    train_block(block, calls["mid_block"], [subnet], "residual", optimizer.backward)
    optimizer.step(1e-3, "here")
    after = block.weights(block.space.teacher)
    width = {"conv1.weight": 0, "conv2.weight": 1, "norm2.weight": 0, "time_emb_proj.weight": 0}
    for name, axis in width.items():
        change = (after[f"resnets.0.{name}"] - before[f"resnets.0.{name}"]).abs()
        kept = change.shape[axis] // 2
        assert change.narrow(axis, 0, kept).mean() > 0
        assert change.narrow(axis, kept, kept).max() == 0
    change = (after["attentions.0.to_v.weight"] - before["attentions.0.to_v.weight"]).abs()
    assert change[:16].mean() > 0
    assert change[16:].max() == 0


def test_gradients_of_a_steps_subnets_add_up():
    supernet = tiny_supernet()
    block = supernet.blocks["down_blocks.0"]
    _, calls = capture(supernet.teacher.denoiser, ["down_blocks.0"], teacher_inputs(supernet))
    subnets = [block.space.smallest, block.space.teacher]

    def gradients(chosen):
        block.zero_grad()
        losses = train_block(
            block, calls["down_blocks.0"], chosen, "residual", lambda loss: loss.backward()
        )
        return losses, [None if p.grad is None else p.grad.clone() for p in block.parameters()]

    losses, both = gradients(subnets)
    alone = [gradients([subnet]) for subnet in subnets]
    assert losses == [alone[0][0][0], alone[1][0][0]]
    for whole, one, other in zip(both, alone[0][1], alone[1][1], strict=True):
        parts = [part for part in (one, other) if part is not None]
        if whole is None:
            assert not parts
        else:
            torch.testing.assert_close(whole, sum(parts))


def test_the_sandwich_takes_the_teachers_subnet_and_the_smallest_in_turn():
    block = tiny().space.blocks[0]
    random = generator(0, "test", 0)
    seconds = [list(subnets_of_step(block, step, random, True))[1] for step in range(4)]
    assert seconds == [block.teacher, block.smallest] * 2
    assert len(list(subnets_of_step(block, 0, random, False))) == 1


def test_random_subnets_are_uniform_over_the_options():
    block = tiny().space.blocks[0]
    random = generator(0, "test", 0)
    drawn = [random_subnet(block, random) for _ in range(600)]
    for slot in block.slots:
        counts = [sum(s[slot.path] == o.name for s in drawn) for o in slot.options]
        assert min(counts) > 0.7 * 600 / len(slot.options)


def test_training_lowers_the_loss_of_subnets():
    supernet = fresh()
    shown = []

    class Watch(training.Progress):
        def update(self, done, **figures):
            shown.append(figures["loss"])

    settings = SETTINGS.model_copy(update={"steps": 60, "learning_rate": 3e-3})
    fit(supernet, tiny_data(), settings, progress=Watch())
    assert len(shown) == 60
    assert sum(shown[-15:]) < 0.8 * sum(shown[:15])


def interrupted(monkeypatch, at, **arguments):
    """Training that saves at every step and is stopped at the beginning of one."""
    supernet = fresh()
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)

    class Stop(training.Progress):
        def update(self, done, **_):
            if done == at + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(supernet, tiny_data(), SETTINGS, progress=Stop(), **arguments)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_ends_with_the_weights_of_one_never_stopped(
    tmp_path, monkeypatch, precision
):
    whole, resumed = fresh(), fresh()
    fit(whole, tiny_data(), SETTINGS, precision=precision)
    kept = {"checkpoint": tmp_path / "c", "fingerprint": "a", "precision": precision}
    interrupted(monkeypatch, 3, **kept)
    assert load_state(tmp_path / "c")[1]["step"] == "3"
    fit(resumed, tiny_data(), SETTINGS, **kept)
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_of_something_else_is_not_taken_up(tmp_path, monkeypatch):
    whole, other = fresh(), fresh()
    fit(whole, tiny_data(), SETTINGS)
    interrupted(monkeypatch, 3, checkpoint=tmp_path / "c", fingerprint="a", seed=5)
    fit(other, tiny_data(), SETTINGS, checkpoint=tmp_path / "c", fingerprint="b")
    assert_same(other.state_dict(), whole.state_dict())


def test_a_damaged_checkpoint_starts_over(tmp_path):
    whole, other = fresh(), fresh()
    fit(whole, tiny_data(), SETTINGS)
    (tmp_path / "c").write_bytes(b"no tensors")
    fit(other, tiny_data(), SETTINGS, checkpoint=tmp_path / "c")
    assert_same(other.state_dict(), whole.state_dict())


def test_another_seed_trains_otherwise():
    one, other = fresh(), fresh()
    fit(one, tiny_data(), SETTINGS, seed=0)
    fit(other, tiny_data(), SETTINGS, seed=1)
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_a_loss_that_is_not_finite_names_step_and_block_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    supernet = fresh()
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)

    class Spoil(training.Progress):
        def update(self, done, **_):
            if done == 4:  # the checkpoint of step 3 is written, that of step 4 will be
                next(supernet.teacher.denoiser.mid_block.parameters()).data.fill_(torch.nan)

    with pytest.raises(RunError, match=r"supernet step 4, block \S+: .*supernet.learning_rate"):
        fit(supernet, tiny_data(), SETTINGS, checkpoint=tmp_path / "c", progress=Spoil())
    tensors, meta = load_state(tmp_path / "c")
    assert meta["step"] == "4"
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_threads_train_what_one_thread_trains(monkeypatch):
    one, two = fresh(), fresh()
    fit(one, tiny_data(), SETTINGS)
    monkeypatch.setattr("diffnas.supernet_training.workers_for", lambda *_: 2)
    fit(two, tiny_data(), SETTINGS)
    assert_same(two.state_dict(), one.state_dict())


@pytest.mark.parametrize("count", [2, 100])
def test_blocks_trained_in_groups_come_to_the_same_weights(count):
    together, apart = fresh(), fresh()
    fit(together, tiny_data(), SETTINGS)
    fit(apart, tiny_data(), SETTINGS.model_copy(update={"groups": count}))
    assert_same(apart.state_dict(), together.state_dict())


def test_groups_hold_about_equal_numbers_of_weights():
    space = untrained().space
    weights = {block.name: block.cost.params for block in space.blocks}
    found = groups(space, 2)
    assert sorted(name for group in found for name in group) == sorted(weights)
    one, other = (sum(weights[name] for name in group) for group in found)
    assert abs(one - other) <= max(weights.values())


def test_only_a_groups_weights_have_optimizer_states():
    supernet = fresh()
    first, _ = groups(supernet.space, 2)
    part = BlockTraining(supernet, tiny_data(), SETTINGS, first, seed=0, precision="fp32")
    part.step(0)
    assert {name.split("/")[1] for name in part.state() if name.startswith("optimizer")} == set(
        first
    )


def test_a_training_in_groups_that_was_stopped_goes_on_in_its_group(tmp_path, monkeypatch):
    settings = SETTINGS.model_copy(update={"groups": 2})
    whole, resumed = fresh(), fresh()
    fit(whole, tiny_data(), settings)
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)
    begun = []

    class StopInTheSecond(training.Progress):
        def start(self, stage, total, done=0):
            begun.append(done)

        def update(self, done, **_):
            if len(begun) == 2 and done == 4:
                raise KeyboardInterrupt

    class Watch(training.Progress):
        def start(self, stage, total, done=0):
            begun.append(done)

    kept = {"checkpoint": tmp_path / "c.safetensors", "fingerprint": "a"}
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), tiny_data(), settings, progress=StopInTheSecond(), **kept)
    fit(resumed, tiny_data(), settings, progress=Watch(), **kept)
    assert begun == [0, 0, SETTINGS.steps, 3]
    assert_same(resumed.state_dict(), whole.state_dict())


def test_one_pixel_levels_can_be_trained():
    supernet = tiny_supernet(sample_size=2)
    fit(supernet, tiny_data(size=2), SETTINGS)
    assert all(torch.isfinite(value).all() for value in supernet.state_dict().values())


def test_a_supernet_that_was_emptied_builds_nothing():
    net = tiny_supernet()
    chosen = Architecture({block.name: block.teacher for block in net.space.blocks})
    net.blocks.clear()
    with pytest.raises(KeyError):
        net.build(chosen)
