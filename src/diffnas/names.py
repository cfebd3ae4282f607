"""Names of stages, and of folders and models as others may see them. Needs no torch."""

import re
from pathlib import Path

STAGES = ("plan", "supernet", "scores", "architecture", "student", "metrics", "report")
"""The stages of a run, in their order."""

FORMATS = ("onnx", "openvino")
"""Of ``diffnas export``."""

OWN_SAMPLES = "teacher"
"""The data set of what the teacher itself makes."""


def folder_name(model: str) -> str:
    """A safe folder name from a path or Hub id: its last part; of a student its run's and its own.

    All students' pipelines are in folders of one name, which would tell nothing.
    """
    parts = Path(model).resolve().parts if Path(model).exists() else model.rstrip("/").split("/")
    match parts:
        case [*_, run, "students", student, "pipeline"]:
            last = f"{run}-{student}"
        case _:
            last = parts[-1]
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "model"


def public_name(model: str) -> str:
    """A Hub id as it is; of a path only the last part, for files that may be handed on."""
    return folder_name(model) if Path(model).expanduser().exists() else model


def looks_like_path(source: str) -> bool:
    """Whether what does not exist was meant as a path: an id of the Hub has one slash, within."""
    written = source.startswith((".", "/", "~")) or source.endswith("/")
    return written or source.count("/") > 1 or "\\" in source
