"""One teacher and one finished run for all end-to-end tests; copies are cheap."""

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.runs import compress
from tests.models import tiny_pipeline


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def finished(teacher, tmp_path_factory):
    """A run of ``--macs 0.6`` with all its stages done; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert compress(teacher, out, "--macs", "0.6") == 0
    return out


@pytest.fixture(scope="session")
def student(finished):
    """The pipeline of its student."""
    (folder,) = (finished / "students").iterdir()
    return folder / "pipeline"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
