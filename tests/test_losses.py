import math

import pytest
import torch

from diffnas.blocks import Call
from diffnas.losses import beta, block_loss, block_target, joint_loss

X = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
Y = X + torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # Var(Y - X) = 1
GIVEN = Y + 0.5


@pytest.mark.parametrize(
    ("kind", "scale"), [("residual", 1.0), ("output", float(Y.var(correction=0))), ("plain", 1.0)]
)
def test_the_block_loss_is_the_squared_error_over_its_scale(kind, scale):
    target = block_target(Call((X,), {}, Y), kind)
    assert block_loss(GIVEN, target).item() == pytest.approx(0.25 / scale)


def test_leaving_a_block_out_costs_one_whatever_the_size_of_its_stream():
    stream = 1000 + 100 * torch.randn(4, 8)
    change = torch.randn(4, 8)
    call = Call((), {"hidden_states": stream}, stream + change - change.mean())
    assert block_loss(stream, block_target(call, "residual")).item() == pytest.approx(1, rel=1e-3)


def test_leaving_a_block_out_that_does_nothing_costs_nothing():
    assert block_loss(X, block_target(Call((X,), {}, X.clone()), "residual")).item() == 0


def test_what_a_block_passes_on_unchanged_counts_as_the_stream_that_it_is():
    target = block_target(Call((X,), {}, X), "residual")
    assert block_loss(X, target).item() == 0
    given = X + 0.5  # a student's, which is given what its own layers made
    assert block_loss(given, target).item() == pytest.approx(0.25 / float(X.var(correction=0)))


def test_each_of_two_streams_is_compared_with_its_own_input():
    image, text = torch.randn(2, 4, 8), 100 * torch.randn(2, 4, 8)
    call = Call(
        (), {"image": image, "text": text}, (text + GIVEN.mean(), image + torch.randn(2, 4, 8))
    )
    of_text, of_image = block_target(call, "residual").scales
    assert of_text < 1e-6
    assert 0.5 < of_image < 2


def test_where_shapes_differ_nothing_is_carried_on():
    output = torch.tensor([[0.0, 2.0]])
    target = block_target(Call((X,), {}, output), "residual")
    assert block_loss(output + 1, target).item() == pytest.approx(1)  # Var(output) = 1


def test_an_output_returned_twice_counts_once():
    skip, last = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    target = block_target(Call((X,), {}, (last, (skip, last))), "residual")
    assert target.indices == (0, 1)
    given = (last + 2, (skip, last + 2))  # errors 4 / Var 4, and 0
    assert block_loss(given, target).item() == pytest.approx(0.5)


def test_equal_but_distinct_outputs_count_each():
    target = block_target(Call((X,), {}, (Y, Y.clone())), "plain")
    assert target.indices == (0, 1)


def test_half_precision_outputs_are_compared_in_full_precision():
    target = block_target(Call((X.half(),), {}, Y.half()), "residual")
    assert block_loss(GIVEN.half(), target).dtype == torch.float32


@pytest.mark.parametrize("schedule", ["linear", "cosine", "step"])
def test_beta_rises_from_0_to_1(schedule):
    values = [beta(schedule, progress / 10) for progress in range(11)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values == sorted(values)


def test_the_schedules_half_way():
    assert beta("linear", 0.25) == 0.25
    assert beta("cosine", 0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert [beta("step", progress) for progress in (0.49, 0.5)] == [0, 1]


def test_static_and_none_do_not_change():
    assert {beta("static", progress / 4) for progress in range(5)} == {0.5}
    assert {beta("none", progress / 4) for progress in range(5)} == {1.0}


def test_the_joint_loss_sums_blocks_and_weighs_them_against_the_prediction():
    blocks = [torch.tensor(1.0), torch.tensor(3.0)]
    assert joint_loss(blocks, torch.tensor(10.0), 0.25).item() == 0.75 * 4 + 0.25 * 10
    assert joint_loss(blocks, torch.tensor(10.0), 1.0).item() == 10
    assert joint_loss(blocks, torch.tensor(10.0), 0.0).item() == 4
    assert joint_loss([], torch.tensor(10.0), 0.5).item() == 10
