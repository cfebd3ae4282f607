import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from diffnas.blocks import Call, capture, freeze, map_tensors, recorded, tensors
from tests.engine import tiny_teacher


def captured(**overrides):
    teacher = tiny_teacher(**overrides)
    names = teacher.family.block_names(teacher.denoiser)
    inputs = teacher.family.example_inputs(teacher.denoiser, 2, torch.device("cpu"))
    inputs["sample"] = torch.randn(2, 1, 8, 8)
    return teacher, *capture(teacher.denoiser, names, inputs)


def test_a_captured_block_called_again_gives_the_captured_output():
    teacher, _, calls = captured()
    assert list(calls) == teacher.family.block_names(teacher.denoiser)
    for name, call in calls.items():
        with torch.no_grad():
            again = teacher.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        for one, other in zip(tensors(again), tensors(call.output), strict=True):
            torch.testing.assert_close(one, other)


def test_the_denoisers_own_output_comes_along():
    _, output, _ = captured()
    assert output.sample.shape == (2, 1, 8, 8)
    assert not output.sample.requires_grad


def test_captured_tensors_are_detached_and_contiguous():
    _, _, calls = captured()
    for call in calls.values():
        for tensor in tensors((call.args, call.kwargs, call.output)):
            assert not tensor.requires_grad
            assert tensor.is_contiguous()


def test_captured_tensors_go_with_the_last_one_who_holds_them():
    gc.disable()  # what stands in a cycle would stay for long
    try:
        *others, calls = captured()
        held = [weakref.ref(each) for call in calls.values() for each in tensors(call.output)]
        del calls, others
        assert not any(each() is not None for each in held)
    finally:
        gc.enable()


def test_what_a_block_returns_twice_stays_one_tensor():
    _, _, calls = captured()
    hidden, skips = calls["down_blocks.0"].output
    assert hidden is skips[-1]


def test_what_two_blocks_share_stays_one_tensor():
    _, _, calls = captured()
    time = [list(tensors((call.args, call.kwargs)))[-1] for call in calls.values()]
    assert all(tensor is time[0] for tensor in time)


def test_the_stream_is_the_hidden_state():
    _, _, calls = captured()
    (stream,) = calls["down_blocks.0"].streams
    assert stream.shape == (2, 16, 8, 8)
    assert calls["mid_block"].streams[0] is calls["down_blocks.1"].output[0]


def test_tokens_are_streams_too():
    image, text, time = torch.zeros(2, 16, 8), torch.zeros(2, 5, 8), torch.zeros(2, 8)
    call = Call((), {"hidden": image, "text": text, "time": time}, None)
    assert [id(each) for each in call.streams] == [id(image), id(text)]


def test_a_call_without_tensors_has_no_stream():
    assert Call((3,), {"x": None}, None).streams == []


def test_hooks_are_gone_afterwards_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="stop"), recorded(model, ["0"]):
        raise RuntimeError("stop")
    assert not model[0]._forward_hooks


def test_trees_keep_their_shape():
    one = torch.ones(1)
    tree = {"a": (one, [one, None]), "b": 3}
    mapped = map_tensors(lambda tensor: tensor + 1, tree)
    assert mapped["b"] == 3
    assert mapped["a"][1][1] is None
    assert mapped["a"][0] is mapped["a"][1][0]
    assert mapped["a"][0].item() == 2


@pytest.mark.parametrize("size", [1, 4])
def test_a_frozen_channels_last_tensor_survives_the_backward_of_a_group_norm(size):
    # In a process of its own: torch's CPU GroupNorm crashes the process otherwise.
    script = f"""
import torch
from torch import nn
from diffnas.blocks import freeze
x = torch.randn(4, {size * size}, 32).transpose(1, 2).reshape(4, 32, {size}, {size})
nn.GroupNorm(4, 32)(freeze(x)).square().mean().backward()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_freezing_changes_no_value():
    x = torch.randn(2, 3, 5).transpose(1, 2).reshape(2, 5, 3, 1)
    assert torch.equal(freeze(x), x)


def test_half_precision_stays_only_under_an_autocast_in_the_same():
    x = torch.ones(2, dtype=torch.bfloat16)
    assert freeze(x).dtype == torch.float32
    for kind, frozen in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        with torch.autocast("cpu", kind):
            assert freeze(x).dtype == frozen
