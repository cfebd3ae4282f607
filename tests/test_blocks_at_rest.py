"""A block's supernet is used only while it is on the teacher's device."""

from contextlib import contextmanager

import pytest
import torch

from diffnas import effects, patched_teacher, scoring
from diffnas import supernet as module
from diffnas.scores import plain_options
from diffnas.settings import ScoreSettings, SupernetSettings
from diffnas.supernet import BlockSupernet
from diffnas.supernet_training import fit, groups
from tests.engine import tiny_data, tiny_supernet

SCORING = ScoreSettings(images=8, batch_size=4, candidates=4, output_images=8)
TRAINING = SupernetSettings(steps=2, batch_size=4, learning_rate=1e-3, groups=2)


@pytest.fixture
def woken(monkeypatch):
    """The blocks that were woken together, in order; one that is used and was not is an error."""
    found, now = [], set()

    @contextmanager
    def awake(parts, device, *, changed=True):
        assert device == torch.device("cpu")
        names = {part.space.name for part in parts}
        found.append(names)
        now.update(names)
        yield
        now.difference_update(names)

    def used(work):
        def run(block, *args, **kwargs):
            assert block.space.name in now
            return work(block, *args, **kwargs)

        return run

    monkeypatch.setattr(module, "awake", awake)
    monkeypatch.setattr(patched_teacher, "awake", awake)
    monkeypatch.setattr(BlockSupernet, "forward", used(BlockSupernet.forward))
    monkeypatch.setattr(scoring, "plain_options", used(plain_options))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # as on a GPU: one after the other
    return found


def test_blocks_that_are_trained_together_are_awake_together(woken):
    net = tiny_supernet()
    fit(net, tiny_data(), TRAINING)
    assert woken == [set(names) for names in groups(net.space, 2)]


def test_blocks_are_scored_one_at_a_time(woken):
    net = tiny_supernet()
    table = scoring.score(net, tiny_data(), SCORING)
    one_by_one = [{name} for name in net.blocks]
    assert woken == one_by_one * 2  # the batch is in two parts
    woken.clear()
    effects.output_errors(net, tiny_data(), table, SCORING)
    assert woken == one_by_one


def test_what_is_scored_and_built_is_where_the_teacher_is(monkeypatch):
    net = tiny_supernet()
    moved = []

    def to(model, device):
        moved.append(device)
        return model

    monkeypatch.setattr(torch.nn.Module, "to", to)
    net.build(net.space.own)
    assert moved == [net.teacher.device]
