"""What is needed now and then: on the device while used, else on the CPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def awake(
    parts: Iterable[nn.Module], device: torch.device, *, changed: bool = True
) -> Iterator[None]:
    """While active, these modules are on the device; those that were not go back to the CPU.

    ``changed``: whether they come back with what has become of their parameters; else those that
    went are put back, which takes no copy.
    """
    moved = [part for part in parts if any(each.device != device for each in _tensors(part))]
    kept = [] if changed else [(each, each.data) for part in moved for each in part.parameters()]
    try:
        for part in moved:
            part.to(device)
        yield
    finally:
        for parameter, values in kept:
            parameter.data = values
        for part in moved:
            part.to("cpu")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
