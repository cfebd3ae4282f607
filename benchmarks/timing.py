"""How benchmarks report times: their spread, and the machine they were taken on."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

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
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The CPU's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
