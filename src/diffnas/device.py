"""Which device the work runs on."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from diffnas.errors import UserError

if TYPE_CHECKING:
    import torch

KINDS = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes the best one present.

    Raises:
        UserError: no such kind of device, or none of that kind here.
    """
    check_device_name(name)
    # Only now: a mistyped name is told without waiting for torch.
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"--device {name}: no CUDA device is present; use cpu or auto")
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: the last one here is cuda:{count - 1}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: no Apple GPU is present; use cpu or auto")
    return device


def check_device_name(name: str) -> None:
    """Refuse what names no kind of device; needs no torch.

    Raises:
        UserError: ``name`` is none of :data:`KINDS`, nor ``cuda:N``.
    """
    if name in KINDS or re.fullmatch(r"cuda:(0|[1-9]\d{0,2})", name):
        return
    raise UserError(f"--device {name}: unknown; one of {', '.join(KINDS)}, cuda:N")


def device_name(device: torch.device | str) -> str:
    """What that device is, as its maker calls it: latencies hold for this one only."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} GPU" if device.type == "mps" else _processor()


def _processor() -> str:
    """The processor's model; its architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
