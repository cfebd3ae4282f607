from functools import cache

import numpy as np
import pytest
import torch

from diffnas.architecture import BlockSpace, Cost, subnet_at
from diffnas.blocks import capture
from diffnas.families import flux2
from diffnas.losses import block_loss, block_target
from diffnas.scores import plain_options, score_block, shared_prefixes
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.supernet import BlockSupernet, Supernet
from tests.engine import SMALL_SPACE, tiny_supernet
from tests.families import kinds


@cache
def supernet(conv_min_share=0.0):
    space = SMALL_SPACE.model_copy(update={"conv_min_share": conv_min_share})
    return tiny_supernet(space, layers_per_block=2)


def calls(count=2):
    teacher = supernet().teacher
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        inputs = teacher.family.example_inputs(teacher.denoiser, 2, torch.device("cpu"))
        inputs["sample"] = torch.randn(inputs["sample"].shape, generator=random)
        found.append(capture(teacher.denoiser, list(supernet().blocks), inputs)[1])
    return found


@pytest.mark.parametrize("name", ["down_blocks.0", "mid_block", "up_blocks.0", "up_blocks.1"])
# Without a slot for the resampling, a block goes on after its last slot.
@pytest.mark.parametrize("conv_min_share", [0.0, 1.0])
def test_shared_prefixes_change_no_score(name, conv_min_share):
    block, given = supernet(conv_min_share).blocks[name], [call[name] for call in calls()]
    table = score_block(block, given, "residual")
    some = np.random.default_rng(0).permutation(len(table.choices))[:100]
    expected = np.zeros(len(some))
    with torch.no_grad():
        for call in given:
            target = block_target(call, "residual")
            for place, choice in enumerate(table.choices[some]):
                block.activate(subnet_at(block.space, choice))
                expected[place] += float(block_loss(block(*call.args, **call.kwargs), target)) / 2
    np.testing.assert_allclose(table.losses[some], expected, rtol=1e-5, atol=1e-12)


def test_of_a_layer_of_two_streams_the_image_counts_however_little_changes_first(monkeypatch):
    # Of an image larger than its text, the options that cost most change the text alone.
    monkeypatch.setattr(flux2, "TOKENS", 2)
    model = kinds.teacher("texts, shared modulation")
    net = Supernet(model, make_space(model.denoiser, model.family, SpaceSettings()))
    call = net.calls(["transformer_blocks.0"], kinds.inputs_of(model))["transformer_blocks.0"]
    block, target = net.blocks["transformer_blocks.0"], block_target(call, "residual")
    table = score_block(block, [call], "residual")
    first = block.space.slots[0].options[1].edit
    assert first is not None
    assert set(first) == {"kind", "context_width"}
    with torch.no_grad():
        for choice, loss in zip(table.choices, table.losses, strict=True):
            block.activate(subnet_at(block.space, choice))
            expected = float(block_loss(block(*call.args, **call.kwargs), target))
            assert loss == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_folded_upsampler_is_not_computed_beside_the_teachers_whose_output_it_gives():
    block, call = supernet().blocks["up_blocks.0"], calls(1)[0]["up_blocks.0"]
    (last,) = [slot for slot in block.space.slots if slot.kind == "upsampler"]
    column = block.space.slots.index(last)
    plain = plain_options(block)
    vars(plain[last.path]["folded"])["forward"] = None  # would be an error if it were called
    table = score_block(block, [call], "residual", plain=plain)
    losses = {tuple(row): loss for row, loss in zip(table.choices, table.losses, strict=True)}
    folded = [option.name for option in last.options].index("folded")
    of_folded = {row: loss for row, loss in losses.items() if row[column] == folded}
    assert len(of_folded) == len(losses) / len(last.options)
    for row, loss in of_folded.items():
        assert loss == losses[*row[:column], 0, *row[column + 1 :]]


def test_where_an_image_is_not_doubled_a_folded_upsampler_is_scored_as_it_is():
    model = kinds.teacher("texts", sample_size=9)  # comes back from 5 pixels
    space = make_space(model.denoiser, model.family, SMALL_SPACE)
    net = Supernet(model, space)
    name = next(b.name for b in space.blocks if any(s.kind == "upsampler" for s in b.slots))
    block, call = net.blocks[name], net.calls([name], kinds.inputs_of(model))[name]
    table, target = score_block(block, [call], "residual"), block_target(call, "residual")
    column = [slot.kind for slot in block.space.slots].index("upsampler")
    options = [option.name for option in block.space.slots[column].options]
    folded = table.choices[:, column] == options.index("folded")
    with torch.no_grad():
        for choice, loss in zip(table.choices[folded][:8], table.losses[folded][:8], strict=True):
            block.activate(subnet_at(block.space, choice))
            expected = float(block_loss(block(*call.args, **call.kwargs), target))
            assert loss == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_every_subnet_is_scored_once_and_the_first_row_is_the_teachers():
    block = supernet().blocks["mid_block"]
    table = score_block(block, [calls(1)[0]["mid_block"]], "residual")
    assert len(table.choices) == block.space.size
    assert len({tuple(choice) for choice in table.choices}) == block.space.size
    assert subnet_at(block.space, table.choices[0]) == block.space.teacher
    assert subnet_at(block.space, table.choices[-1]) == block.space.smallest


def test_the_untrained_teachers_subnet_has_no_loss_and_others_have():
    table = score_block(supernet().blocks["mid_block"], [calls(1)[0]["mid_block"]], "residual")
    assert table.losses[0] < 1e-9
    assert table.losses[1:].min() > 1e-4


def test_each_node_of_the_tree_of_prefixes_is_computed_once():
    block = supernet().blocks["mid_block"]
    plain, computed = plain_options(block), []
    for path, options in plain.items():
        for module in options.values():
            module.register_forward_hook(lambda *_, path=path: computed.append(path))
    score_block(block, [calls(1)[0]["mid_block"]], "residual", plain=plain)
    sizes = [len(slot.options) for slot in block.space.slots]
    nodes = [int(np.prod(sizes[: depth + 1])) for depth in range(len(sizes))]
    assert [computed.count(path) for path in block.slots] == nodes


def test_what_comes_before_the_last_slot_runs_once_for_all_its_options():
    block = supernet().blocks["up_blocks.0"]  # ends in its upsampler
    assert block.space.slots[-1].path == "upsamplers.0"
    runs = []
    handle = block.block.register_forward_hook(lambda *_: runs.append(1))
    score_block(block, [calls(1)[0]["up_blocks.0"]], "residual")
    handle.remove()
    endings = len(block.space.slots[-1].options)
    assert len(runs) == block.space.size // endings + 1  # one to see that it ends there


@torch.no_grad()
def test_subnets_may_be_walked_in_any_order():
    block, call = supernet().blocks["mid_block"], calls(1)[0]["mid_block"]
    choices = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    subnets = [subnet_at(block.space, choice[: len(block.space.slots)]) for choice in choices]

    def outputs():
        for subnet in subnets:
            block.activate(subnet)
            yield block(*call.args, **call.kwargs)

    with shared_prefixes(block, plain_options(block)):
        shared = list(outputs())
    for one, other in zip(shared, outputs(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_block_is_as_before_after_scoring_even_after_an_error():
    block = supernet().blocks["mid_block"]
    with pytest.raises(RuntimeError, match="stop"), shared_prefixes(block, plain_options(block)):
        raise RuntimeError("stop")
    assert all("forward" not in vars(slot) for slot in block.slots.values())


def test_another_input_is_not_answered_from_the_last_one():
    one, other = (call["mid_block"] for call in calls(2))
    block = supernet().blocks["mid_block"]
    both = score_block(block, [one, other], "residual").losses
    alone = [score_block(block, [call], "residual").losses for call in (one, other)]
    np.testing.assert_allclose(both, np.mean(alone, axis=0))


def test_a_block_without_slots_has_one_score():
    module = supernet().teacher.denoiser.mid_block
    block = BlockSupernet(module, BlockSpace("mid_block", Cost(), ()))
    table = score_block(block, [calls(1)[0]["mid_block"]], "residual")
    assert table.choices.shape == (1, 0)
    assert table.losses.shape == (1,)


def test_scoring_computes_no_gradients():
    block = supernet().blocks["mid_block"]
    score_block(block, [calls(1)[0]["mid_block"]], "residual")
    assert all(parameter.grad is None for parameter in block.parameters())
