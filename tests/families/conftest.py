from pathlib import Path

import pytest

from diffnas.student.modeling import DiffNASUNet2DModel
from diffnas.student.saving import save_pipeline
from tests.models import tiny_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    pipeline = tiny_pipeline()
    edits = {"mid_block.attentions.0": {"kind": "skip"}}
    pipeline.unet = DiffNASUNet2DModel.from_config(pipeline.unet.config, edits=edits)
    save_pipeline(pipeline, tmp_path / "student")
    return tmp_path / "student"
