"""What a stage leaves in the run folder; whole runs are in ``tests/end_to_end``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from diffnas import stages
from diffnas.budget import parse_budget
from diffnas.progress import Progress
from diffnas.scoring import score
from diffnas.settings import SelectSettings, parse
from diffnas.space import make_space
from tests.engine import SMALL_SPACE, tiny_data, tiny_supernet, tiny_teacher

FEW = {"images": 8, "batch_size": 4, "output_images": 4, "candidates": 3}
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


def test_the_channels_of_a_trunk_are_those_of_a_fresh_run_of_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, sizes = stages.kept_channels, []

    def watched(*given: Any, batch_size: int, **how: Any) -> dict[str, Tensor]:
        sizes.append(batch_size)
        return measured(*given, batch_size=batch_size, **how)

    monkeypatch.setattr(stages, "kept_channels", watched)
    monkeypatch.setattr("diffnas.trunk.IMAGES", 8)
    teacher = tiny_teacher()
    space = make_space(
        teacher.denoiser, teacher.family, SMALL_SPACE.model_copy(update={"trunk": 0.5})
    )
    settings = parse(ONE_STEP)
    job = stages.Job(
        tmp_path, teacher, "", tiny_data(), space, settings, parse_budget(), Progress()
    )
    larger = settings.supernet.model_copy(update={"batch_size": 4})
    other = replace(job, settings=settings.model_copy(update={"supernet": larger}))
    for each in (job, job, other):  # importance is of random batches of that size
        stages.trunk(each)
    monkeypatch.setattr("diffnas.trunk.AT_ONCE", space.teacher.macs)  # as of a large model
    stages.trunk(other)
    assert sizes == [2, 4, 1]


def test_a_random_choice_is_of_all_that_were_scored_and_not_of_the_best(tmp_path: Path) -> None:
    net = tiny_supernet()
    settings = parse({**ONE_STEP, "select": {"rule": "random"}, "score": FEW})
    job = stages.Job(
        tmp_path, net.teacher, "", tiny_data(), net.space, settings, parse_budget(), Progress()
    )
    scores = score(net, tiny_data(), settings.score)
    assert stages.output_errors(job, net, scores, "these") == (scores, "these")
    by_error = replace(job, settings=settings.model_copy(update={"select": SelectSettings()}))
    fewer, _ = stages.output_errors(by_error, net, scores, "these")
    assert all(len(block.losses) == 3 for block in fewer.blocks.values())
