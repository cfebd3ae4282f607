"""The order of a run's first steps; whole runs are in ``tests/end_to_end``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas import run
from diffnas.budget import parse_budget
from diffnas.data import load_data
from diffnas.errors import UserError
from diffnas.progress import Progress
from diffnas.run_log import RunLog
from diffnas.select import check_tolerance
from diffnas.settings import DEFAULT_RULE, Settings, load, parse
from tests.models import tiny_dit, tiny_pipeline


class DecodingError(Exception):
    """Raised with what is asked for, in place of the loading of images."""


class StoppedError(Exception):
    """Raised with what is awake, in place of the first training."""


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
            **{"settings": Settings(), **further},
        )

    return call


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"format": 1, "model": {"source": "cats", "fingerprint": "00"}}, "of another teacher"),
        ({"format": 99}, "newer than this DiffNAS reads"),
        ({"my": "plan"}, "has a plan.json that is no run's"),
    ],
)
def test_a_folder_of_another_run_is_refused_before_images_are_decoded_into_it(
    compress: Any, tmp_path: Path, plan: dict[str, Any], words: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=words):
        compress()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("config.json", "is the folder of a model, or a part of one"),
        ("students", "students, which a run has as a folder, is a file there"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(
    compress: Any, tmp_path: Path, there: str, words: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / there).write_text("{}")
    with pytest.raises(UserError, match=words):
        compress()
    assert [file.name for file in (tmp_path / "run").iterdir()] == [there]


def test_settings_that_are_no_runs_are_not_replaced(compress: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text("# mine\n")
    with pytest.raises(UserError, match=r"has a settings\.yaml that is no run's"):
        compress()


def test_a_budget_out_of_reach_is_refused_before_images_are_decoded(compress: Any) -> None:
    with pytest.raises(UserError, match="the smallest reachable is"):
        compress(macs=0.001)


def test_a_sampler_that_cannot_do_is_refused_before_images_are_decoded(compress: Any) -> None:
    with pytest.raises(UserError, match="the model has 1000 timesteps"):
        compress(settings=load(None, ("evaluate.sampler_steps=5000",)))


def test_classes_for_a_model_without_are_refused_before_images_are_decoded(compress: Any) -> None:
    words = r"^data.label_column = kind: the model takes no classes; leave it out$"
    with pytest.raises(UserError, match=words):
        compress(settings=parse({"data.label_column": "kind"}))


def test_an_autoencoder_that_every_step_needs_stays_awake(
    compress: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake: list[str] = []
    digits = load_data("digits", size=(8, 8), channels=1)

    @contextmanager
    def noted(parts: list[str], _: torch.device) -> Iterator[None]:
        awake.extend(parts)
        yield
        awake.clear()

    def supernet(_: Any) -> None:
        raise StoppedError(*awake)

    monkeypatch.setattr(run, "load_data", lambda *_, **__: digits)
    monkeypatch.setattr(run, "encoding_on", lambda *_: ["its autoencoder"])
    monkeypatch.setattr(run, "awake", noted)
    monkeypatch.setattr(run.stages, "supernet", supernet)
    with pytest.raises(StoppedError, match="its autoencoder"):
        compress()


@pytest.mark.parametrize("steps", [("retrain.steps=9", "supernet.steps=7"), ()])
def test_the_settings_of_a_run_that_was_cut_short_cut_another_as_short(
    compress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]
) -> None:
    digits = load_data("digits", size=(8, 8), channels=1)
    jobs: list[Any] = []
    monkeypatch.setattr(run, "load_data", lambda *_, **__: digits)
    monkeypatch.setattr(run, "_stages", lambda job, _: jobs.append(job))
    compress(settings=load(None, (*steps, "max_steps=4")))
    compress(settings=load(tmp_path / "run" / "settings.yaml"))
    first, second = jobs
    assert second.settings == first.settings
    assert first.settings.retrain.steps == 4
    assert second.whole_steps == first.whole_steps
    assert first.whole_steps == 9 if steps else first.whole_steps > 4


def test_the_settings_of_a_run_that_was_cut_short_are_without_the_cap_the_whole_ones(
    compress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = load_data("digits", size=(8, 8), channels=1)
    jobs: list[Any] = []
    monkeypatch.setattr(run, "load_data", lambda *_, **__: digits)
    monkeypatch.setattr(run, "_stages", lambda job, _: jobs.append(job))
    compress()
    compress(settings=load(None, ("max_steps=4",)))
    compress(settings=load(tmp_path / "run" / "settings.yaml", ("max_steps=null",)))
    whole, short, again = (job.settings.retrain for job in jobs)
    assert short.ema_decay < whole.ema_decay
    assert again == whole


def test_a_student_of_guided_own_samples_follows_its_teacher_alone(tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "teacher")
    few = {"data.limit": 500, "evaluate.sampler_steps": 1, "evaluate.samples": 128}
    diffnas.compress(
        tmp_path / "teacher",
        data="teacher",
        out=tmp_path / "run",
        macs=0.7,
        settings=few,
        until="plan",
    )
    plan = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))
    assert plan["settings"]["retrain"]["task_weight"] == 0
    assert plan["settings"]["retrain"]["output_weight"] == 1
    assert "guided twice" in plan["reasons"]["retrain.task_weight"]


def test_decoding_goes_to_the_run_folder_and_tells_its_progress(
    compress: Any, tmp_path: Path
) -> None:
    with pytest.raises(DecodingError) as caught:
        compress(progress=(progress := Progress()))
    asked = caught.value.args[0]
    assert asked["cache"] == tmp_path / "run" / "data"
    assert asked["progress"] is progress


def test_a_student_of_another_choice_than_the_present_one_is_not_handed_out(tmp_path):
    student = run.Student(tmp_path)
    with pytest.raises(UserError, match="is not made yet; give"):
        student.metrics()
    (tmp_path / "student.json").write_text(json.dumps({"edits": {"a": {"kind": "skip"}}}))
    (tmp_path / "architecture.json").write_text(json.dumps({"edits": {}}))
    for ask in (student.pipeline, student.metrics):
        with pytest.raises(UserError, match="is made of another choice than the present one"):
            ask()


def test_a_path_is_a_folder_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "compress", lambda model, **given: (model, given["data"]))
    asked = [
        diffnas.compress(model, data=data, out=tmp_path / "run")
        for model, data in ((Path("digits"), Path("teacher")), ("digits", "teacher"))
    ]
    assert asked == [
        (str(Path("digits").absolute()), str(Path("teacher").absolute())),
        ("digits", "teacher"),
    ]


@pytest.mark.parametrize(
    "given",
    [{"model": None}, {"data": None}, {"data": ""}, {"out": 5}, {"settings": 5}],
)
def test_an_argument_of_another_kind_is_named(tmp_path: Path, given: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "digits", "data": "digits", "out": tmp_path, **given}
    ((name, value),) = given.items()
    with pytest.raises(UserError, match=f"^{name} = {value!r}: .*; give "):
        diffnas.compress(**asked)


def test_a_run_folder_in_the_home_folder_may_be_written_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(run, "compress", lambda _, **given: given["out"])
    assert diffnas.compress("digits", data="digits", out="~/run") == tmp_path / "run"


@pytest.mark.parametrize(("rule", "refused"), [("random", True), ("local", False)])
def test_a_tolerance_is_the_local_rules(rule: str, refused: bool) -> None:
    budget = parse_budget(tolerance=2.0)
    if refused:
        with pytest.raises(UserError, match=r"--tolerance 2: is the local rule's, --rule random"):
            check_tolerance(budget, rule)
    else:
        check_tolerance(budget, rule)
        check_tolerance(budget, DEFAULT_RULE)


def test_a_log_whose_last_line_was_cut_short_loses_no_further_one(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1}\n{"st')
    for step in (2, 3):
        with RunLog(file, Progress()) as log:
            log.log(step=step)
    first, _, *added = file.read_text().splitlines()
    assert [json.loads(line)["step"] for line in (first, *added)] == [1, 2, 3]
