"""How benchmarks report times: their spread, and the machine they were taken on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

from diffnas.device import device_name

RESULTS = Path("benchmarks/results")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes; what it asked of a GPU is waited for."""
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def quartiles(values: list[float]) -> dict[str, float]:
    """Lower quartile, median, upper quartile."""
    found = quantiles(values, n=4, method="inclusive")
    return dict(zip(("low", "median", "high"), (round(v, 4) for v in found), strict=True))


def span(cell: dict[str, float]) -> str:
    """Median and quartiles."""
    return f"{cell['median']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def machine(device: str) -> dict[str, Any]:
    """Where it was measured."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
