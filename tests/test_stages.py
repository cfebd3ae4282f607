"""What a stage leaves in the run folder; whole runs are in ``tests/end_to_end``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffnas import stages
from diffnas.budget import parse_budget
from diffnas.progress import Progress
from diffnas.settings import parse
from diffnas.space import make_space
from tests.engine import SMALL_SPACE, tiny_data, tiny_teacher

ONE_STEP = {"supernet": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}}


def test_checkpoints_of_another_number_of_groups_go_with_the_supernets_own(tmp_path: Path) -> None:
    teacher, folder = tiny_teacher(), tmp_path / "supernet"
    space = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    folder.mkdir()
    (folder / "checkpoint-3.safetensors").write_bytes(b"")
    job = stages.Job(
        tmp_path, teacher, "", tiny_data(), space, parse(ONE_STEP), parse_budget(), Progress()
    )
    stages.supernet(job)
    assert [file.name for file in folder.iterdir()] == ["supernet.safetensors"]


@pytest.fixture
def job(tmp_path: Path) -> stages.Job:
    teacher = tiny_teacher()
    space = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    settings, budget = parse(ONE_STEP), parse_budget()
    return stages.Job(tmp_path, teacher, "", tiny_data(), space, settings, budget, Progress())


def under(job: stages.Job, **values: Any) -> stages.Job:
    return replace(job, settings=parse({**ONE_STEP, **values}))


@pytest.mark.parametrize(
    "value", [{"supernet.groups": 2}, {"space.max_subnets": 5000}, {"score.enumerate": 9000}]
)
def test_what_changes_no_result_leaves_searches_one(job: stages.Job, value: dict[str, Any]) -> None:
    assert stages._search(under(job, **value)) == stages._search(job)


def test_another_precision_of_the_teacher_is_another_search(job: stages.Job) -> None:
    assert stages._search(under(job, teacher_precision="bf16")) != stages._search(job)


def test_how_blocks_are_searched_names_no_scores_where_all_are_enumerated(
    job: stages.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_table", lambda *_: None)

    def name(**values: Any) -> str:
        return stages.scores(under(job, **values), None, "")[1]  # type: ignore[arg-type]

    assert name(**{"score.enumerate": 9000, "score.evaluations": 50}) == name()
    assert name(**{"score.enumerate": 2}) != name()
    assert name(**{"score.images": 8}) != name()
