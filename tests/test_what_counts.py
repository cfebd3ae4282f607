"""Which settings a result is named after."""

from typing import Any

import pytest

from diffnas.architecture import Space
from diffnas.settings import RetrainSettings, parse
from diffnas.space import make_space
from diffnas.what_counts import of_block_losses, of_retraining, of_search
from tests.engine import SMALL_SPACE, tiny_teacher


@pytest.fixture(scope="module")
def space() -> Space:
    teacher = tiny_teacher()
    return make_space(teacher.denoiser, teacher.family, SMALL_SPACE)


@pytest.mark.parametrize(
    "values", [{"supernet.groups": 2}, {"space.max_subnets": 5000}, {"score.enumerate": 9000}]
)
def test_what_changes_no_result_leaves_searches_one(space: Space, values: dict[str, Any]) -> None:
    assert of_search(parse(values), space) == of_search(parse({}), space)


@pytest.mark.parametrize(
    "values", [{"teacher_precision": "bf16"}, {"score.enumerate": 2}, {"supernet.steps": 7}]
)
def test_what_changes_a_result_makes_another_search(space: Space, values: dict[str, Any]) -> None:
    assert of_search(parse(values), space) != of_search(parse({}), space)


def test_how_blocks_are_searched_names_no_losses_where_all_are_enumerated(space: Space) -> None:
    def name(**values: Any) -> dict[str, Any]:
        return of_block_losses(parse(values), space)

    assert name(**{"score.enumerate": 9000, "score.evaluations": 50}) == name()
    assert name(**{"score.enumerate": 2}) != name()
    assert name(**{"score.images": 8}) != name()


def test_students_from_before_a_setting_was_there_stay_current() -> None:
    before = RetrainSettings(steps=5).model_dump(exclude={"task_weight", "optimizer", "snr_gamma"})
    assert of_retraining(RetrainSettings(steps=5, task_weight=1.0)) == before
    assert of_retraining(RetrainSettings(steps=5, task_weight=0.0))["task_weight"] == 0
    assert of_retraining(RetrainSettings(optimizer="muon"))["optimizer"] == "muon"


def test_what_changes_no_weight_is_no_part_of_a_students_name() -> None:
    kept = RetrainSettings(gradient_checkpointing=False)
    again = RetrainSettings(gradient_checkpointing=True)
    assert of_retraining(again) == of_retraining(kept)
