"""Benchmarks are scripts that import each other by their own folder."""

import sys
from pathlib import Path

import pytest

from tests.models import tiny_pipeline

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture
def small(tmp_path):
    """A teacher of few layers and options."""
    tiny_pipeline().save_pretrained(tmp_path / "small")
    return tmp_path / "small"
