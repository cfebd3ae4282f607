"""What is needed now and then: on the device while used, else on the CPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def awake(parts: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """While active, these modules are on the device; those that were not go back to the CPU."""
    moved = [part for part in parts if any(each.device != device for each in part.parameters())]
    for part in moved:
        part.to(device)
    try:
        yield
    finally:
        for part in moved:
            part.to("cpu")
