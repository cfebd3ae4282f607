"""Latency of calls, measured against each other."""

import time
from collections.abc import Callable, Mapping
from itertools import count
from statistics import median

import torch


def latency_ms(
    calls: Mapping[str, Callable[[], object]],
    *,
    device: torch.device | str,
    repeats: int = 20,
    warmup: int = 3,
    seconds: float = 0.0,
) -> dict[str, float]:
    """Median milliseconds of each call, over ``repeats`` rounds and more while ``seconds`` last.

    The calls take turns, each round beginning with another one, so that a change of clock rate or
    other load on the machine meets all of them alike. On a GPU each call is timed by CUDA events.
    """
    device = torch.device(device)
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.no_grad():
        for _ in range(warmup):
            for name in names:
                calls[name]()
        until = time.monotonic() + seconds
        for turn in count():
            if turn >= repeats and time.monotonic() >= until:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_time_ms(calls[name], device))
    return {name: median(values) for name, values in times.items()}


def _time_ms(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        with torch.cuda.device(device):
            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end))
    _wait(device)
    began = time.perf_counter()
    call()
    _wait(device)
    return (time.perf_counter() - began) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "mps":
        torch.mps.synchronize()
