"""Which budgets are tried, and when a student counts as at par."""

from statistics import mean
from types import SimpleNamespace

import pytest

from diffnas import smallest
from diffnas.errors import RunError
from diffnas.settings import parse
from diffnas.smallest import compress_smallest, lowest, verdict


def tried(threshold, least=0.06):
    """The shares tried where all from ``threshold`` on hold, and the answer."""
    asked = []

    def holds(share):
        asked.append(share)
        return share >= threshold

    return asked, lowest(holds, least)


def test_budgets_fall_until_quality_no_longer_holds_and_then_the_gap_is_halved():
    asked, found = tried(0.3)
    assert asked == [0.5, 0.35, 0.24, 0.29]
    assert found == 0.35
    assert tried(0.28)[1] == 0.29


def test_where_the_first_does_not_hold_larger_ones_are_tried():
    assert tried(0.65) == ([0.5, 0.7, 0.59], 0.7)
    assert tried(0.8) == ([0.5, 0.7, 0.85, 0.77], 0.85)
    assert tried(0.9) == ([0.5, 0.7, 0.85], None)


def test_no_share_below_what_the_space_reaches_is_tried():
    asked, found = tried(0.0, least=0.301)
    assert asked == [0.5, 0.35, 0.31]
    assert found == 0.31
    assert tried(0.0, least=0.621) == ([0.63], 0.63)


def test_no_share_is_tried_twice():
    for percent in range(5, 100):
        asked, _ = tried(percent / 100)
        assert len(asked) == len(set(asked))


def test_where_the_space_does_not_reach_half_the_first_try_is_its_smallest(monkeypatch, tmp_path):
    asked = []
    side = {"frechet_distance": {"mean": 0.5, "each": [0.4, 0.6]}}
    student = SimpleNamespace(metrics=lambda: {"teacher": side, "student": side})

    def compress(model, *, budget, **_):
        asked.append(budget.macs.value)
        return SimpleNamespace(name="it", students={"it": student})

    monkeypatch.setattr(smallest, "compress", compress)
    # Of the digits' MACs it reaches 0.819.
    stock = parse({"space": {"preset": "stock", "exclude": ["*_blocks.*.resnets.*"]}})
    compress_smallest("digits", data="digits", out=tmp_path, settings=stock)
    assert set(asked) == {0.82}


def test_where_none_is_at_par_the_file_that_lists_the_tries_is_named(monkeypatch, tmp_path):
    teacher, student = (
        {"frechet_distance": {"mean": mean, "each": [mean, mean]}} for mean in (0.5, 0.9)
    )
    metrics = {"teacher": teacher, "student": student}
    run = SimpleNamespace(name="it", students={"it": SimpleNamespace(metrics=lambda: metrics)})
    monkeypatch.setattr(smallest, "compress", lambda *_, **__: run)
    with pytest.raises(RunError, match=f"or look at {tmp_path}/smallest.json and choose a budget"):
        compress_smallest("digits", data="digits", out=tmp_path, settings=parse({}))


@pytest.mark.parametrize(("more", "par"), [(-0.05, True), (0.011, True), (0.012, False)])
def test_par_is_the_teachers_distance_and_one_standard_error_of_the_difference(more, par):
    teacher = [0.4, 0.5, 0.6, 0.5]  # whatever both make of the same noise takes no part
    student = [d + more + e for d, e in zip(teacher, [-0.02, 0.02, 0.02, -0.02], strict=True)]
    sides = {"teacher": teacher, "student": student}
    found = verdict(
        {
            side: {"frechet_distance": {"mean": mean(each), "each": each}}
            for side, each in sides.items()
        }
    )
    assert found["error"] == pytest.approx(0.0115, abs=1e-4)
    assert found["student"] - found["teacher"] == pytest.approx(more)
    assert found["par"] is par
