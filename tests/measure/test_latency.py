import time

import pytest
import torch

from diffnas.measure import latency
from diffnas.measure.latency import latency_ms
from tests.engine import on_a_gpu


def test_a_sleep_takes_as_long_as_it_does() -> None:
    calls = {"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}
    found = latency_ms(calls, device="cpu", repeats=5, warmup=0)
    assert 2 <= found["short"] < 20 <= found["long"] < 200


def test_calls_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    latency_ms(calls, device="cpu", repeats=3, warmup=0)
    assert "".join(order) == "abc" + "bca" + "cab"


def test_warm_up_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []
    made: list[int] = []
    monkeypatch.setattr(latency, "_time_ms", lambda call, device: timed.append(call()) or 1.0)
    latency_ms({"a": lambda: made.append(1) or len(made)}, device="cpu", repeats=2, warmup=3)
    assert timed == [4, 5]


def test_one_slow_call_does_not_move_the_median() -> None:
    waits = iter([0.0, 0.0, 0.1, 0.0, 0.0])
    found = latency_ms({"a": lambda: time.sleep(next(waits))}, device="cpu", repeats=5, warmup=0)
    assert found["a"] < 50


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 2), (7.0, 5)])
def test_short_calls_take_more_turns_while_time_lasts(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(latency.time, "monotonic", lambda: next(clock))
    made: list[int] = []
    call = {"a": lambda: made.append(1)}
    latency_ms(call, device="cpu", repeats=2, warmup=0, seconds=seconds)
    assert len(made) == rounds


def test_no_graph_is_made() -> None:
    made: list[bool] = []
    latency_ms({"a": lambda: made.append(torch.is_grad_enabled())}, device="cpu", repeats=1)
    assert not any(made)


@on_a_gpu  # only these work behind Python's back
def test_work_on_a_gpu_is_waited_for() -> None:
    large = torch.rand(4096, 4096, device="cuda")
    calls = {"one": lambda: large @ large, "eight": lambda: [large @ large for _ in range(8)]}
    found = latency_ms(calls, device="cuda")
    assert 4 < found["eight"] / found["one"] < 16
