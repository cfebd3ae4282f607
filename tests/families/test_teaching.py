"""A teacher whose frozen weights are in half precision while it teaches."""

import copy

import numpy as np
import pytest
import torch

from diffnas.architecture import Architecture
from diffnas.blocks import capture, tensors
from diffnas.families.batches import random_batch
from diffnas.families.teaching import teaching
from diffnas.forecast.activations import weight_bytes
from diffnas.optimizer import autocast
from diffnas.retrain import retrain
from diffnas.settings import RetrainSettings, SupernetSettings
from diffnas.supernet_training import BlockTraining
from tests.engine import assert_same, tiny_data, tiny_supernet, tiny_teacher
from tests.families import kinds

CPU = torch.device("cpu")
SUPERNET = SupernetSettings(steps=4, batch_size=4, learning_rate=1e-3)
RETRAIN = RetrainSettings(
    steps=4, batch_size=8, learning_rate=1e-3, ema_decay=0.9, task_weight=1.0, output_weight=0.25
)


def captured(teacher, precision="fp32"):
    """A call on noise, and what blocks were given and gave."""
    names = teacher.family.block_names(teacher.denoiser)
    noisy = random_batch(teacher, tiny_data(), 4, torch.Generator().manual_seed(0))
    with autocast(precision, CPU):
        output, calls = capture(teacher.denoiser, names, noisy.inputs)
    return output.sample, {name: list(tensors(call.output)) for name, call in calls.items()}


def distance(one, other):
    """Of two vectors, as a share of the first one's length."""
    return float((one - other).norm() / one.norm())


def test_its_weights_take_half_the_room():
    teacher = tiny_teacher()
    whole = weight_bytes(teacher.denoiser)
    with teaching(teacher, "bf16"):
        assert weight_bytes(teacher.denoiser) == whole / 2
    assert weight_bytes(teacher.denoiser) == whole


def test_unless_asked_for_it_stays_as_it_is():
    teacher = tiny_teacher()
    before = captured(teacher)[0]
    with teaching(teacher, "fp32"):
        assert torch.equal(captured(teacher)[0], before)


@pytest.mark.parametrize("stopped", [False, True])
def test_afterwards_it_is_to_the_last_bit_what_was_loaded(stopped):
    teacher = tiny_teacher()
    weights, before = copy.deepcopy(teacher.denoiser.state_dict()), captured(teacher)[0]
    try:
        with teaching(teacher, "bf16"):
            if stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_same(teacher.denoiser.state_dict(), weights)
    assert torch.equal(captured(teacher)[0], before)


def test_what_it_gives_is_single_precision_and_nearly_the_same():
    teacher = tiny_teacher()
    output, calls = captured(teacher)
    with teaching(teacher, "bf16"):
        rounded, found = captured(teacher)
    assert rounded.dtype == torch.float32
    assert 0 < distance(output, rounded) < 0.03
    for name, outputs in calls.items():
        for one, other in zip(outputs, found[name], strict=True):
            assert other.dtype == torch.float32
            assert distance(one, other) < 0.03


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_its_arithmetic_is_its_own_in_mixed_precision_too(precision):
    teacher = tiny_teacher()
    with teaching(teacher, "bf16"):
        assert torch.equal(captured(teacher, precision)[0], captured(teacher)[0])


def test_timesteps_are_told_to_the_last_one():
    teacher = tiny_teacher()
    inputs = teacher.family.example_inputs(teacher.denoiser, 2, CPU)
    inputs |= {"timestep": torch.tensor([999.0, 1000.0])}
    with teaching(teacher, "bf16"):
        first, last = teacher.denoiser(**inputs).sample
    assert not torch.equal(first, last)


def steps(precision, training="fp32"):
    """The blocks' losses in a few steps, and the weights after them."""
    net = tiny_supernet()
    names = [block.name for block in net.space.blocks]
    with teaching(net.teacher, precision):
        part = BlockTraining(net, tiny_data(), SUPERNET, names, seed=0, precision=training)
        found = [list(part.step(step)["blocks"].values()) for step in range(4)]
    return np.array(found), net.state_dict()


@pytest.mark.parametrize("training", ["fp32", "bf16", "fp16"])
def test_a_supernet_has_nearly_the_same_losses_by_it(training):
    (exact, _), (rounded, weights) = steps("fp32", training), steps("bf16", training)
    assert (exact != rounded).all()
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(rounded.mean(1), exact.mean(1), rtol=0.15)
    assert all(value.dtype == torch.float32 for value in weights.values())


def student_after(precision, features="student"):
    net = tiny_supernet()
    student = net.build(Architecture({b.name: b.smallest for b in net.space.blocks}))
    before = torch.cat([each.flatten() for each in student.state_dict().values()])
    settings = RETRAIN.model_copy(update={"features": features})
    with teaching(net.teacher, precision):
        retrain(student, net.teacher, tiny_data(), settings)
    return torch.cat([each.flatten() for each in student.state_dict().values()]) - before


@pytest.mark.parametrize("features", ["student", "teacher"])
def test_a_student_learns_nearly_the_same_from_it(features):
    exact, rounded = student_after("fp32", features), student_after("bf16", features)
    assert rounded.dtype == torch.float32
    assert 0 < distance(exact, rounded) < 0.3


def test_positions_are_not_rounded():
    given = {}
    model = kinds.teacher("texts, shared modulation")
    watch = model.denoiser.pos_embed.register_forward_pre_hook(
        lambda _, ids: given.update(ids=ids[0])
    )
    inputs = kinds.inputs_of(model)
    try:
        with teaching(model, "bf16"):
            model.denoiser(**inputs)
    finally:
        watch.remove()
    assert given["ids"].dtype == torch.float32
