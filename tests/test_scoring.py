"""The table of a whole denoiser."""

from functools import cache

import numpy as np
import pytest

from diffnas import scoring
from diffnas.progress import Progress
from diffnas.scoring import score, subnets_scored
from diffnas.settings import ScoreSettings, SpaceSettings
from tests.engine import tiny_data, tiny_supernet

SETTINGS = ScoreSettings(images=8, batch_size=4)
SEARCHED = SETTINGS.model_copy(update={"enumerate": 90, "evaluations": 25})


@cache
def supernet():
    return tiny_supernet()


def table(settings=SETTINGS, seed=0, **arguments):
    return score(supernet(), tiny_data(), settings, seed=seed, **arguments).blocks


def test_small_blocks_are_scored_whole_and_large_ones_searched():
    assert {block.size > 90 for block in supernet().space.blocks} == {True, False}
    for block in supernet().space.blocks:
        found = table(SEARCHED)[block.name]
        assert len(found.choices) == (block.size if block.size <= 90 else 25)


def test_a_block_of_certain_subnets_alone_is_scored_whole():
    net = tiny_supernet(SpaceSettings(preset="stock"), layers_per_block=2)
    few = SETTINGS.model_copy(update={"enumerate": 1})
    found = score(net, tiny_data(), few).blocks
    for block in net.space.blocks:
        assert np.array_equal(found[block.name].choices, block.choices())
        assert subnets_scored(block, few) == block.size


def test_a_searched_blocks_losses_are_those_of_the_same_subnets_in_the_whole_table():
    whole, searched = table(), table(SEARCHED)
    for name, found in searched.items():
        losses = {tuple(c): x for c, x in zip(whole[name].choices, whole[name].losses, strict=True)}
        expected = [losses[tuple(choice)] for choice in found.choices]
        np.testing.assert_allclose(found.losses, expected, rtol=1e-5, atol=1e-12)


def test_a_searched_block_keeps_the_teachers_own_subnet_first_and_has_the_cheapest():
    for block in supernet().space.blocks:
        choices = table(SEARCHED)[block.name].choices
        assert not choices[0].any()
        assert [len(slot.options) - 1 for slot in block.slots] in choices.tolist()


def test_no_more_subnets_are_foretold_than_a_block_has():
    generous = SEARCHED.model_copy(update={"evaluations": 10_000})
    blocks = supernet().space.blocks
    assert [subnets_scored(block, generous) for block in blocks] == [b.size for b in blocks]


def test_a_search_follows_from_the_seed():
    once, again, other = table(SEARCHED), table(SEARCHED), table(SEARCHED, seed=1)
    for name, found in once.items():
        np.testing.assert_array_equal(found.choices, again[name].choices)
    assert any(not np.array_equal(found.choices, other[n].choices) for n, found in once.items())


def test_a_search_does_not_hang_on_the_number_of_threads(monkeypatch):
    longer = SEARCHED.model_copy(update={"batch_size": 2, "evaluations": 70})
    alone = table(longer)
    monkeypatch.setattr(scoring, "workers_for", lambda *_: 4)
    for name, found in table(longer).items():
        np.testing.assert_array_equal(found.choices, alone[name].choices)
        np.testing.assert_allclose(found.losses, alone[name].losses, rtol=1e-6)


def test_progress_rises_to_its_total():
    class Heard(Progress):
        def start(self, stage, total, done=0):
            self.total, self.seen = total, [done]

        def update(self, done, **figures):
            self.seen.append(done)

    for settings in (SETTINGS, SEARCHED):
        heard = Heard()
        table(settings, progress=heard)
        assert heard.seen == sorted(heard.seen)
        assert heard.seen[-1] == heard.total


class Begun(Progress):
    """Where the bar began and ended."""

    def start(self, stage, total, done=0):
        self.begun, self.total = done, total

    def update(self, done, **figures):
        self.last = done


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("settings", [SETTINGS, SEARCHED])
def test_scoring_goes_on_where_it_was_stopped(tmp_path, settings, threads, monkeypatch):
    whole, saves = table(settings), []
    save = scoring.save_tensors

    def save_and_stop(path, tensors, made_from):
        save(path, tensors, made_from)
        saves.append(path)
        if len(saves) == len(whole) + 2:  # amid the second half of the batch
            raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "save_tensors", save_and_stop)
    kept = {"checkpoint": tmp_path / "c", "fingerprint": "f"}
    with pytest.raises(KeyboardInterrupt):
        table(settings, **kept)
    monkeypatch.setattr(scoring, "workers_for", lambda *_: threads)
    seen = Begun()
    found = table(settings, **kept, progress=seen)
    assert 0 < seen.begun < seen.total == seen.last
    assert len(saves) == 2 * len(whole)  # each block of each half once
    for name, block in whole.items():
        np.testing.assert_array_equal(found[name].choices, block.choices)
        np.testing.assert_allclose(found[name].losses, block.losses, rtol=1e-6)


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path):
    table(checkpoint=tmp_path / "c", fingerprint="f")
    seen = Begun()
    table(checkpoint=tmp_path / "c", fingerprint="g", progress=seen)
    assert seen.begun == 0
