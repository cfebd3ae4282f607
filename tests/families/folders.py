"""Saved pipelines: their damages, and how they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffnas.errors import UserError
from diffnas.families.loading import load_teacher

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
"""Of a pipeline's UNet."""


def edit_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refused(model: Path | str, load: Any = load_teacher, **settings: Any) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(UserError) as caught:
        load(str(model), **settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def flatten(folder: Path) -> None:
    """All files in one folder, as in early pipelines on the Hub."""
    for file in list(folder.glob("*/*")):
        file.rename(folder / file.name)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
