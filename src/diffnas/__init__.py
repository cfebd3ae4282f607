"""Block-wise architecture search that makes pretrained diffusion models smaller and faster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnas.api import compress
    from diffnas.errors import RunError, UserError
    from diffnas.families.loading import load_teacher
    from diffnas.pareto import front
    from diffnas.run import Run, Student
    from diffnas.student.saving import load

__all__ = ["Run", "RunError", "Student", "UserError", "compress", "front", "load", "load_teacher"]

_HOMES = {
    "Run": "diffnas.run",
    "RunError": "diffnas.errors",
    "Student": "diffnas.run",
    "UserError": "diffnas.errors",
    "compress": "diffnas.api",
    "front": "diffnas.pareto",
    "load": "diffnas.student.saving",
    "load_teacher": "diffnas.families.loading",
}


def __getattr__(name: str) -> Any:
    # Only when asked for: a mistake on the command line is told without waiting for torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'diffnas' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
