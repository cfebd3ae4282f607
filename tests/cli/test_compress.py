"""``diffnas compress`` and ``demo``: what a run is asked, and what is printed when it is done."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffnas import run  # here: what libraries say when imported is not the command's
from diffnas.cli import main
from tests.report.runs import make_run, metrics


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Replace the run by one that leaves a made-up folder, as far as ``reaches``."""
    seen: dict[str, Any] = {"reaches": "metrics"}
    monkeypatch.chdir(tmp_path)

    def compress(model: str, **given: Any) -> Any:
        seen.update(model=model, **given)
        name, out = given["budget"].name, given["out"]
        make_run(out, seen["reaches"], name)
        student = SimpleNamespace(path=out / "students" / name, metrics=metrics)
        return SimpleNamespace(path=out, name=name, students={name: student})

    monkeypatch.setattr(run, "compress", compress)
    return seen


def test_the_closing_table_and_where_things_are_come_last(capsys, asked):
    (Path("out")).mkdir()
    Path("out/report.html").write_text("")
    assert main(["compress", "digits", "--out", "out", "--params", "0.5"]) == 0
    printed, told = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[:3] == ["params-0.5", "teacher student ratio", "parameters 1.20 M 600 k 0.50"]
    assert lines[-3:] == [
        "pipeline out/students/params-0.5/pipeline",
        "samples out/students/params-0.5/samples.png",
        "report out/report.html",
    ]
    assert told == ""


def test_a_run_that_stops_early_says_where_it_is(capsys, asked):
    asked["reaches"] = "scores"
    assert main(["compress", "digits", "--out", "out", "--until", "scores"]) == 0
    assert capsys.readouterr().out == "run out\n"
    assert asked["until"] == "scores"


def test_the_built_in_model_brings_its_data_and_its_folder(asked):
    assert main(["compress", "digits"]) == 0
    assert asked["data"] == "digits"
    assert asked["out"] == Path("runs/digits")
    assert asked["budget"].name == "macs-0.5"


def test_a_tilde_in_the_run_folder_is_the_home_folder(asked, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["compress", "digits", "--out=~/run"]) == 0
    assert asked["out"] == tmp_path / "home" / "run"


def test_flags_become_settings(asked):
    flags = ["--space", "paper", "--rule", "random", "--max-steps", "9", "--precision", "bf16"]
    assert main(["compress", "a/b", "--data", "photos", "--seed", "4", *flags]) == 0
    settings = asked["settings"]
    assert settings.space.preset == "paper"
    assert settings.select.rule == "random"
    assert settings.max_steps == 9
    assert settings.precision == "bf16"
    assert settings.seed == 4
    assert asked["data"] == "photos"
    assert asked["out"] == Path("runs/b")


def test_the_demo_halves_the_digits_in_few_steps(asked):
    assert main(["demo"]) == 0
    assert asked["model"] == "digits"
    assert asked["budget"].name == "macs-0.5-params-0.5"
    assert asked["out"] == Path("runs/demo")
    assert asked["settings"].supernet.steps < 1000
    assert asked["settings"].retrain.steps <= 3000
