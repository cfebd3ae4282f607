"""A teacher that only teaches: its frozen weights may be in bfloat16, at half the memory.

Nothing else has to know: the denoiser takes and gives float32, as do captured calls
(:func:`diffnas.blocks.freeze`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffnas.blocks import map_tensors
from diffnas.families.teacher import Teacher
from diffnas.settings import TeacherPrecision


@contextmanager
def teaching(teacher: Teacher, precision: TeacherPrecision) -> Iterator[None]:
    """While active, the denoiser's weights are in that precision; afterwards as they were.

    Until then the weights as loaded rest in the memory of the CPU. With these a teacher is measured
    and a student begins, and subnets are scored: of small errors at the output, rounding would be a
    part. The denoiser computes in bfloat16 whatever the precision of the training around it.
    """
    if precision == "fp32":
        yield
        return
    denoiser = teacher.denoiser
    weights = [*denoiser.parameters(), *denoiser.buffers()]
    loaded = [(each, each.data.to("cpu")) for each in weights if each.is_floating_point()]
    device = teacher.device
    try:
        for tensor, _ in loaded:
            tensor.data = tensor.data.bfloat16()
        vars(denoiser)["forward"] = _Door(denoiser.forward, device.type, teacher.family.shared)
        yield
    finally:
        vars(denoiser).pop("forward", None)
        for tensor, values in loaded:
            tensor.data = values.to(device)


@dataclass(frozen=True)
class _Door:
    """Stands before a denoiser's forward: float32 outside, bfloat16 inside."""

    forward: Callable[..., Any]
    device: str
    shared: tuple[str, ...]  # inputs of no image, such as positions, which bfloat16 would round

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = {name: each for name, each in kwargs.items() if name not in self.shared}
        args, own = map_tensors(_taken, (args, own))
        kwargs = {**kwargs, **own}
        with torch.autocast(self.device, enabled=False):
            return map_tensors(_whole, self.forward(*args, **kwargs))


def _taken(tensor: Tensor) -> Tensor:
    """All but timesteps and scales of guidance, one number a row: bfloat16 has no 999.

    FLUX rounds its timesteps itself, as it does wherever its weights are in bfloat16.
    """
    return tensor.bfloat16() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.float()
