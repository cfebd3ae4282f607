"""What is needed now and then: on the device while used, else on the CPU."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


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


def copied_to_cpu(module: Module) -> Module:
    """A copy on the CPU, of which nothing is made on the module's own device."""
    # The memo keeps deepcopy from copying the tensors.
    memo = {id(each): _on_cpu(each) for each in _tensors(module)}
    return copy.deepcopy(module, memo)


def _on_cpu(tensor: Tensor) -> Tensor:
    made = tensor.detach().to("cpu", copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
