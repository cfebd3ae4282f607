"""Latencies at batch 1 on the teacher's device: of the parts of a space, and of whole students."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from diffnas.architecture import Architecture, Space, joined
from diffnas.blocks import capture
from diffnas.budget import Amount
from diffnas.families import Teacher
from diffnas.measure.latency import latency_ms
from diffnas.student.edited import edited
from diffnas.student.modeling import edit_module


@dataclass(frozen=True)
class Timed:
    """Milliseconds of a student and of the teacher, taken in turns."""

    teacher: float
    student: float

    @property
    def share(self) -> float:
        """The student's latency as a share of the teacher's."""
        return self.student / self.teacher

    def of_limit(self, limit: Amount) -> float:
        """The student's latency as a share of what the limit allows: 1 and less keeps it."""
        return self.student / limit.of(self.teacher)


def options_ms(teacher: Teacher, space: Space) -> dict[Any, float]:
    """Milliseconds of each (block, slot, option) at batch 1 on the teacher's device.

    Options of one slot take turns, on the inputs they have in the teacher with the space's trunk.
    """
    device = teacher.device
    base = edited(teacher.denoiser, space.own, space)
    paths = [joined(block.name, slot.path) for block in space.blocks for slot in block.slots]
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    _, calls = capture(base, paths, inputs)
    found: dict[Any, float] = {}
    for block in space.blocks:
        for slot in block.slots:
            path = joined(block.name, slot.path)
            own = base.get_submodule(path)
            modules = {
                option.name: own if option.edit is None else edit_module(own, option.edit)
                for option in slot.options
            }
            call = calls[path]
            timed = latency_ms(
                {
                    name: partial(module, *call.args, **call.kwargs)
                    for name, module in modules.items()
                },
                device=device,
            )
            found |= {(block.name, slot.path, name): ms for name, ms in timed.items()}
    return found


def paired_ms(teacher: Teacher, architecture: Architecture, space: Space) -> Timed:
    """Latency of one call at batch 1 of a whole student and of the teacher, on its device."""
    device = teacher.device
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    calls = {"teacher": partial(teacher.denoiser, **inputs)}
    if architecture.edits(space):  # else it is the teacher: the same by definition
        calls["student"] = partial(edited(teacher.denoiser, architecture, space), **inputs)
    ms = latency_ms(calls, device=device)
    return Timed(ms["teacher"], ms.get("student", ms["teacher"]))
