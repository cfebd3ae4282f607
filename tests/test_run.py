"""The order of a run's first steps; whole runs are in ``tests/end_to_end``."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffnas import run
from diffnas.budget import parse_budget
from diffnas.errors import UserError
from diffnas.progress import Progress
from diffnas.settings import Settings
from tests.models import tiny_pipeline


class DecodingError(Exception):
    """Raised with what is asked for, in place of the loading of images."""


@pytest.fixture
def compress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``compress`` of a tiny teacher, up to the loading of images."""
    tiny_pipeline().save_pretrained(tmp_path / "teacher")

    def load_data(_: str, **asked: Any) -> None:
        raise DecodingError(asked)

    monkeypatch.setattr(run, "load_data", load_data)

    def call(macs: float = 0.6, **further: Any) -> None:
        run.compress(
            str(tmp_path / "teacher"),
            data="digits",
            out=tmp_path / "run",
            budget=parse_budget(macs=macs),
            settings=Settings(),
            **further,
        )

    return call


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"format": 1, "model": {"source": "cats", "fingerprint": "00"}}, "of another teacher"),
        ({"format": 99}, "newer than this DiffNAS reads"),
    ],
)
def test_a_folder_of_another_run_is_refused_before_images_are_decoded_into_it(
    compress: Any, tmp_path: Path, plan: dict[str, Any], words: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=words):
        compress()


def test_a_budget_out_of_reach_is_refused_before_images_are_decoded(compress: Any) -> None:
    with pytest.raises(UserError, match="the smallest reachable is"):
        compress(macs=0.001)


def test_decoding_goes_to_the_run_folder_and_tells_its_progress(
    compress: Any, tmp_path: Path
) -> None:
    with pytest.raises(DecodingError) as caught:
        compress(progress=(progress := Progress()))
    asked = caught.value.args[0]
    assert asked["cache"] == tmp_path / "run" / "data"
    assert asked["progress"] is progress
