"""The error that one replaced block makes at the output."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffnas.architecture import BlockScores, subnet_at
from diffnas.blocks import Call, capture, map_tensors
from diffnas.effects import near_fronts, output_errors
from diffnas.progress import Progress
from diffnas.scoring import noisy, score, validation_parts
from diffnas.settings import ScoreSettings
from diffnas.space import make_space
from diffnas.supernet import Supernet
from diffnas.trunk import kept_channels, make_trunk
from tests.engine import SMALL_SPACE, scramble, tiny_data, tiny_supernet, tiny_teacher

SETTINGS = ScoreSettings(images=8, batch_size=4, candidates=6, output_images=8)


@cache
def supernet():
    net = tiny_supernet()
    for block in net.blocks.values():
        scramble(block, 5)  # so that the teacher's options are no longer the teacher
    return net


@cache
def table():
    return score(supernet(), tiny_data(), SETTINGS)


def errors(settings=SETTINGS, **arguments):
    return output_errors(supernet(), tiny_data(), table(), settings, **arguments)


@torch.no_grad()
def by_hand(net, settings, name, choice):
    """The same error by a hook on the teacher, which puts in what the subnet gives."""
    block = net.blocks[name]
    block.activate(subnet_at(block.space, choice))

    def replace(_, args, kwargs, output):
        cut = net.cut({name: Call(args, kwargs, output)})[name]
        made = Call((), {}, block(*cut.args, **cut.kwargs))
        return net.whole(name, Call(args, kwargs, output), made)

    found = []
    for part in validation_parts(net, tiny_data(), settings, 0):
        batch = noisy(net, tiny_data(), part)
        wanted = net.teacher.denoiser(**batch.inputs).sample
        module = net.teacher.denoiser.get_submodule(name)
        handle = module.register_forward_hook(replace, with_kwargs=True)
        found.append(float(F.mse_loss(net.teacher.denoiser(**batch.inputs).sample, wanted)))
        handle.remove()
    block.activate(block.space.teacher)
    return np.mean(found)


def test_it_is_the_error_of_the_teacher_with_that_one_subnet():
    for name, block in errors().blocks.items():
        for choice, given in zip(block.choices, block.losses, strict=True):
            expected = by_hand(supernet(), SETTINGS, name, choice)
            assert given == pytest.approx(expected, rel=1e-4)


def narrowed():
    teacher = tiny_teacher()
    made = make_trunk(teacher, kept_channels(teacher, tiny_data(), 2, batch_size=64, seed=0))
    settings = SMALL_SPACE.model_copy(update={"trunk": 0.5})
    return Supernet(teacher, make_space(teacher.denoiser, teacher.family, settings), made)


def test_with_a_narrower_trunk_the_channels_left_out_are_the_teachers_own():
    net = narrowed()
    scores = score(net, tiny_data(), SETTINGS)
    for name, found in output_errors(net, tiny_data(), scores, SETTINGS).blocks.items():
        expected = by_hand(net, SETTINGS, name, found.choices[-1])
        assert found.losses[-1] == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_what_a_narrow_block_gives_stands_where_it_belongs_among_the_teachers_outputs():
    net = narrowed()
    inputs = net.teacher.family.example_inputs(net.teacher.denoiser, 2, torch.device("cpu"))
    _, calls = capture(net.teacher.denoiser, ["down_blocks.1"], inputs)
    whole = calls["down_blocks.1"]
    cut = net.cut(calls)["down_blocks.1"]
    zeros = map_tensors(torch.zeros_like, cut.output)
    hidden, skips = net.whole("down_blocks.1", whole, Call((), {}, zeros))
    kept = net.trunk.kept["down 1"]
    left = torch.tensor([c for c in range(32) if c not in kept])
    assert not hidden[:, kept].any()
    assert torch.equal(hidden[:, left], whole.output[0][:, left])
    assert hidden is skips[-1]


def test_a_subnet_that_does_as_the_teacher_makes_no_error():
    net = tiny_supernet()
    scores = score(net, tiny_data(), SETTINGS)
    for block in output_errors(net, tiny_data(), scores, SETTINGS).blocks.values():
        assert block.losses[0] < 1e-9 < block.losses.max()


def test_only_so_many_images_are_taken():
    fewer = errors(SETTINGS.model_copy(update={"output_images": 4}))
    assert any(
        not np.allclose(block.losses, errors().blocks[name].losses)
        for name, block in fewer.blocks.items()
    )


def test_of_batches_as_many_are_taken_as_hold_so_many_images():
    more = errors(SETTINGS.model_copy(update={"output_images": 5}))
    for name, block in errors().blocks.items():
        np.testing.assert_array_equal(more.blocks[name].losses, block.losses)


def test_where_parts_are_smaller_than_a_batch_no_fewer_images_are_taken():
    uneven = SETTINGS.model_copy(update={"images": 7, "batch_size": 3, "output_images": 6})
    taken = []  # of parts of 3, 2 and 2 images

    def watched(net, data, part):
        taken.append(len(part.rows))
        return noisy(net, data, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnas.effects.noisy", watched)
        errors(uneven)
    assert taken == [3, 2, 2]


def test_the_supernet_is_left_as_it_was():
    net = supernet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    active = {n: [slot.active for slot in b.slots.values()] for n, b in net.blocks.items()}
    errors()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert active == {n: [s.active for s in b.slots.values()] for n, b in net.blocks.items()}


def test_it_goes_on_after_the_last_block_that_was_done(tmp_path, monkeypatch):
    whole, file = errors(), tmp_path / "checkpoint.safetensors"

    class Stop(Progress):
        def update(self, done, **_):
            if done > len(whole.blocks["down_blocks.0"].choices):
                raise KeyboardInterrupt

    monkeypatch.setattr("diffnas.effects.workers_for", lambda *_: 1)
    with pytest.raises(KeyboardInterrupt):
        errors(checkpoint=file, fingerprint="a", progress=Stop())

    class First(Progress):
        def start(self, stage, total, done=0):
            self.done = done

    shown = First()
    again = errors(checkpoint=file, fingerprint="a", progress=shown)
    assert shown.done == len(whole.blocks["down_blocks.0"].choices)
    for name, block in again.blocks.items():
        np.testing.assert_array_equal(block.losses, whole.blocks[name].losses)


def test_threads_change_nothing(monkeypatch):
    found = []
    for workers in (1, 3):
        monkeypatch.setattr("diffnas.effects.workers_for", lambda *_, w=workers: w)
        found.append(errors())
    for name, block in found[0].blocks.items():
        np.testing.assert_allclose(block.losses, found[1].blocks[name].losses, rtol=1e-6)


@pytest.mark.parametrize("candidates", [3, 7, 1000])
def test_near_the_fronts_are_the_teachers_options_the_cheapest_and_the_best(candidates):
    settings = SETTINGS.model_copy(update={"candidates": candidates})
    for block in supernet().space.blocks:
        scores = table().blocks[block.name]
        rows = near_fronts(block, scores, settings)
        assert len(rows) == min(candidates, len(scores.choices))
        assert not rows[0].any()
        macs = [block.cost_of(subnet_at(block, choice)).macs for choice in scores.choices]
        assert scores.choices[int(np.argmin(macs))].tolist() in rows.tolist()
        assert len({tuple(row) for row in rows}) == len(rows)


def test_of_a_large_front_subnets_of_all_costs_are_taken():
    block = next(b for b in supernet().space.blocks if b.size >= 12)
    choices = block.choices()
    costs = [block.cost_of(subnet_at(block, choice)).macs for choice in choices]
    falling = BlockScores(choices, -np.array(costs, dtype=float))  # all on one front
    settings = SETTINGS.model_copy(update={"candidates": 6})
    rows = near_fronts(block, falling, settings)
    taken = sorted(block.cost_of(subnet_at(block, row)).macs for row in rows)
    middle = (min(costs) + max(costs)) / 2
    assert taken[1] < middle < taken[-2]
