"""Limits on latency, against made-up latencies: no test here waits for a clock."""

import pytest

from diffnas import limits, timing
from diffnas.architecture import Architecture
from diffnas.budget import parse_budget
from diffnas.errors import RunError, UserError
from diffnas.limits import CLOSE, CORRECTIONS, option_metrics, within_latency
from diffnas.select.table import SummedCost
from diffnas.space import make_space
from diffnas.timing import Timed, paired_ms
from tests.engine import SMALL_SPACE, tiny_teacher
from tests.select.tables import block, scores, three_blocks

TEACHER_MS = 20.0


class Device:
    """Options cost ``alone`` ms per MAC when timed alone; students what ``whole`` says.

    ``whole``: share of the teacher's, from the share of the MACs in slots that a student keeps.
    """

    def __init__(self, monkeypatch, table, whole, alone=0.01):
        self.table, self.whole = table, whole
        self.measured: list[dict[str, dict[str, str]]] = []
        self.additive = {"latency": SummedCost(TEACHER_MS, {
            (space.name, slot.path, option.name): alone * option.cost.macs
            for space in table.space.blocks for slot in space.slots for option in slot.options
        })}  # fmt: skip
        monkeypatch.setattr(limits, "paired_ms", self.paired_ms)

    def kept(self, architecture):
        slots = [(s, space.name) for space in self.table.space.blocks for s in space.slots]
        now = [s.option(architecture.blocks[name][s.path]).cost.macs for s, name in slots]
        return sum(now) / sum(s.options[0].cost.macs for s, _ in slots)

    def paired_ms(self, teacher, architecture, space):
        self.measured.append(architecture.blocks)
        return Timed(TEACHER_MS, TEACHER_MS * self.whole(self.kept(architecture)))

    def choose(self, rule="local", seed=0, **budget):
        found = within_latency(
            None, self.table, parse_budget(**budget), rule, seed=seed,
            additive=self.additive, whole={},
        )  # fmt: skip
        assert found.architecture.blocks in self.measured
        assert all(self.measured.count(each) == 1 for each in self.measured)
        share = self.whole(self.kept(found.architecture))
        assert found.measured["latency_share"] == pytest.approx(share)
        return found


def many():
    """Twelve blocks with many sizes between all and nothing."""
    return scores(*(block(f"b{i}", [(100 + i, 9), (70, 6), (40, 3), (15, 1), (0, 0)],
                          [(60, 5), (30, 2), (0, 0)]) for i in range(12)))  # fmt: skip


WHOLES = {
    "as predicted": lambda kept: 0.1 + 0.9 * kept,
    "saving more than predicted at first": lambda kept: 0.1 + 0.9 * kept**3,
    "saving less than predicted at first": lambda kept: 0.1 + 0.9 * kept**0.5,
    "in steps": lambda kept: 0.1 + 0.9 * round(kept * 6) / 6,
}


@pytest.mark.parametrize("rule", ["local", "local-ratio", "random"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("whole", WHOLES)
def test_what_is_chosen_was_measured_within_the_limit(monkeypatch, whole, share, rule):
    device = Device(monkeypatch, many(), WHOLES[whole])
    found = device.choose(rule, latency=share)
    assert found.measured["latency_share"] <= share
    assert len(device.measured) <= 1 + CORRECTIONS


@pytest.mark.parametrize("alone", [0.002, 0.01, 0.1])
def test_sums_of_options_timed_alone_do_not_decide_what_is_within_reach(monkeypatch, alone):
    """By their sum the fastest would be at 0.8, or below nothing; whole it is at 0.1."""
    device = Device(monkeypatch, many(), WHOLES["as predicted"], alone)
    found = device.choose(latency=0.3)
    assert 0.25 < found.measured["latency_share"] <= 0.3
    assert found.predicted["latency_share"] == pytest.approx(found.measured["latency_share"])
    assert len(device.measured) == 2


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("whole", list(WHOLES)[:3])
def test_a_student_comes_close_below_its_limit(monkeypatch, whole, share):
    """Corrections loosen, too: a student far below its limit gave up more than it had to."""
    found = Device(monkeypatch, many(), WHOLES[whole]).choose(latency=share)
    assert found.measured["latency_share"] >= (CLOSE - 0.05) * share


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_student_comes_close_where_nearly_all_must_go(monkeypatch, share):
    found = Device(monkeypatch, many(), lambda kept: 0.1 + 0.9 * kept**0.3).choose(latency=share)
    assert found.measured["latency_share"] >= CLOSE * share


def test_a_limit_in_milliseconds_is_kept_in_milliseconds(monkeypatch):
    found = Device(monkeypatch, many(), WHOLES["as predicted"]).choose(latency="8ms")
    assert 7.5 < found.measured["latency_ms"] <= 8
    assert found.measured["teacher_latency_ms"] == TEACHER_MS


def test_a_limit_that_the_teacher_keeps_asks_for_no_loss(monkeypatch):
    for latency in (1.0, "25ms"):
        found = Device(monkeypatch, many(), WHOLES["as predicted"]).choose(latency=latency)
        assert found.tolerance == 1


def test_out_of_reach_is_only_what_the_fastest_misses_as_measured(monkeypatch):
    device = Device(monkeypatch, many(), WHOLES["as predicted"])
    assert device.choose(latency=0.1).measured["latency_share"] == pytest.approx(0.1)
    for latency, least in ((0.09, "0.1"), ("1.9ms", "2.00 ms")):
        with pytest.raises(UserError) as error:
            device.choose(latency=latency)
        assert str(error.value) == (
            f"--latency {latency}: the fastest architecture of this space measures {least} of the "
            "teacher's 20.0 ms on this device; raise it, or allow smaller options in the space "
            "settings"
        )


@pytest.mark.parametrize("whole", [lambda kept: 1.2 - 0.2 * kept, lambda kept: 1.0])
def test_a_space_that_saves_no_time_is_refused(monkeypatch, whole):
    with pytest.raises(UserError, match=r"--latency 0\.9: the fastest .* raise it"):
        Device(monkeypatch, many(), whole).choose(latency=0.9)


def test_limits_that_pull_apart_are_named_as_they_were_given(monkeypatch):
    pulling = scores(block("a", [(100, 100), (0, 150), (150, 0)]))
    device = Device(monkeypatch, pulling, lambda kept: min(1.0, kept + 0.1))
    for latency in (0.6, "12ms"):
        with pytest.raises(UserError) as error:
            device.choose(latency=latency, params=0.6)
        assert str(error.value).startswith(f"--params 0.6 --latency {latency}: no architecture")


def test_joined_limits_that_none_measured_keeps_are_named_as_they_were_given(monkeypatch):
    """The prediction finds one within both limits, whose measured latency is over."""
    table = scores(block("a", [(100, 100), (0, 150), (40, 10)]))
    device = Device(monkeypatch, table, lambda kept: 0.1 if kept == 0 else 0.9)
    with pytest.raises(UserError) as error:
        device.choose(latency=0.5, params=0.6)
    assert str(error.value) == (
        "--params 0.6 --latency 0.5: no student that was timed (1) kept the latency; the "
        "fastest measured 0.9 of the teacher's 20.0 ms, beside the other limits; raise one"
    )


def test_joined_limits_all_hold(monkeypatch):
    device = Device(monkeypatch, three_blocks(), WHOLES["saving less than predicted at first"])
    found = device.choose(latency=0.8, params=0.5)
    assert found.measured["latency_share"] <= 0.8
    assert found.cost.params <= 0.5 * device.table.space.teacher.params


def test_when_all_tries_miss_what_is_known_to_keep_the_limit_is_taken(monkeypatch):
    device = Device(monkeypatch, many(), lambda kept: 0.1 if kept == 0 else 0.95)
    found = device.choose(latency=0.9)
    assert device.kept(found.architecture) == 0
    assert len(device.measured) <= 1 + CORRECTIONS


def test_measurements_that_contradict_each_other_are_told_as_such(monkeypatch):
    """Two architectures are as fast alone; of the whole ones one misses by far."""
    table = scores(block("a", [(100, 9), (0, 1), (0, 0)]), losses={"a": [0.1, 0.3, 0.2]})
    device = Device(monkeypatch, table, lambda kept: 0.1)
    device.whole = lambda kept: 0.1 if len(device.measured) == 1 else 0.9
    with pytest.raises(
        RunError, match=r"--latency 0\.5: .* 0\.1 of .* within reach .*run it again"
    ):
        device.choose(latency=0.5)


def test_without_a_latency_limit_nothing_is_measured(monkeypatch):
    device = Device(monkeypatch, many(), WHOLES["as predicted"])
    found = within_latency(
        None, device.table, parse_budget(macs=0.5), "local", seed=0, additive={}, whole={}
    )
    assert found.measured == found.predicted == {}
    assert device.measured == []


def weights_as_ms(calls, **_):
    """In place of a clock: a module takes a millisecond per weight."""
    return {
        name: float(sum(parameter.numel() for parameter in call.func.parameters()))
        for name, call in calls.items()
    }


def test_a_whole_student_is_timed_beside_the_teacher(monkeypatch):
    monkeypatch.setattr(timing, "latency_ms", weights_as_ms)
    teacher = tiny_teacher()
    space = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    least = Architecture({each.name: each.smallest for each in space.blocks})
    cost = space.cost_of(least).params
    assert paired_ms(teacher, least, space) == Timed(space.teacher.params, cost)
    own = Architecture({each.name: each.teacher for each in space.blocks})
    assert paired_ms(teacher, own, space) == Timed(space.teacher.params, space.teacher.params)
    assert sum(p.numel() for p in teacher.denoiser.parameters()) == space.teacher.params


def test_every_option_is_timed_where_latency_is_limited(monkeypatch):
    monkeypatch.setattr(timing, "latency_ms", weights_as_ms)
    teacher = tiny_teacher()
    space = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    additive, whole = option_metrics(teacher, space, parse_budget(latency=0.5))
    assert whole == {}
    assert additive["latency"] == (
        space.teacher.params,
        {
            (each.name, slot.path, option.name): option.cost.params
            for each in space.blocks
            for slot in each.slots
            for option in slot.options
        },
        space.teacher.params,
    )
