"""Names of folders."""

import re
from pathlib import Path


def folder_name(model: str) -> str:
    """A safe folder name from a path or Hub id: its last part."""
    last = Path(model).resolve().name if Path(model).exists() else model.rstrip("/").split("/")[-1]
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "model"
