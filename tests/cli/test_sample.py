"""``diffnas sample``: a grid written whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnas.cli import main
from diffnas.families import Teacher
from diffnas.families.conditions import random_classes
from tests.engine import tiny_inpainter, tiny_teacher
from tests.painter import NOTHING, painter


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace loading and sampling; what sampling was asked for."""
    seen: dict[str, Any] = {"teacher": tiny_teacher()}

    def sample(_: Teacher, count: int, **how: Any) -> np.ndarray:
        seen.update(count=count, **how)
        how["progress"](count)
        return np.zeros((count, 1, 8, 8), np.uint8)

    def load_teacher(source: str, **how: Any) -> Any:
        seen.update(source=source, **how)
        return seen["teacher"]

    monkeypatch.setattr(Teacher, "sample", sample)
    monkeypatch.setattr("diffnas.families.loading.load_teacher", load_teacher)
    return seen


def test_a_grid_is_written_and_its_path_printed(capsys, asked, tmp_path):
    out = tmp_path / "grid.png"
    assert main(["sample", "a/pipeline", "--out", str(out), "--count", "9"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as image:
        assert image.size[0] >= 3 * 8
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_a_tilde_in_its_path_is_the_home_folder(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["sample", "a/pipeline", "--out=~/grid.png", "--count", "4"]) == 0
    assert (tmp_path / "grid.png").exists()


def test_flags_reach_the_sampler(asked, tmp_path):
    flags = ["--sampler", "ddim", "--steps", "7", "--seed", "5", "--variant", "fp16"]
    out = ["--out", str(tmp_path / "grid.png"), "--count", "4", "--device", "cpu"]
    assert main(["sample", "a/pipeline", *out, *flags]) == 0
    expected = {"count": 4, "sampler": "ddim", "steps": 7, "seed": 5, "variant": "fp16"}
    assert {key: asked[key] for key in expected} == expected


def sample_to(folder: Path, *flags: str) -> int:
    return main(["sample", "a/pipeline", "--out", str(folder / "grid.png"), "--count", "4", *flags])


def test_prompts_are_shown_in_turn(asked, tmp_path):
    asked["teacher"] = painter()
    assert sample_to(tmp_path, "--prompt", "0.5", "--prompt", "-0.5", "--prompt", "0.25") == 0
    assert asked["shows"](np.array([3, 1, 2]))["value"].tolist() == [0.5, -0.5, 0.25]
    assert asked["nothing"]["value"].item() == pytest.approx(NOTHING)


@pytest.mark.parametrize(("flags", "guidance"), [([], 5.0), (["--guidance", "2"], 2.0)])
def test_guidance_is_as_asked_for_or_the_pipelines_own(asked, tmp_path, flags, guidance):
    asked["teacher"] = painter()
    assert sample_to(tmp_path, "--prompt", "0.5", *flags) == 0
    assert asked["guidance"] == guidance


def test_guidance_that_cannot_be_is_refused_by_its_flag_before_any_work(asked, tmp_path, capsys):
    assert sample_to(tmp_path, "--guidance", "2") == 2
    assert capsys.readouterr().err.startswith("diffnas: --guidance 2: model ")
    assert "count" not in asked


def test_guidance_that_cannot_be_is_refused_before_what_is_shown(asked, tmp_path, capsys):
    assert sample_to(tmp_path, "--guidance", "2", "--prompt", "a cat") == 2
    assert capsys.readouterr().err.startswith("diffnas: --guidance 2: model ")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--steps", "5000"], "--steps 5000: the model has 1000 timesteps"),
        (["--sampler", "own", "--steps", "5000"], "--sampler own, --steps 5000: DDPMScheduler"),
    ],
)
def test_a_sampler_that_cannot_do_is_refused_by_its_flags_before_any_work(
    asked, tmp_path, capsys, flags, told
):
    assert sample_to(tmp_path, *flags) == 2
    assert "count" not in asked
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"diffnas: {told}")


def test_a_model_of_texts_needs_a_prompt(asked, tmp_path, capsys):
    asked["teacher"] = painter()
    assert sample_to(tmp_path) == 2
    assert capsys.readouterr().err.startswith("diffnas: --prompt: not given")
    assert not list(tmp_path.iterdir())


def test_a_model_without_text_takes_no_prompt(asked, tmp_path, capsys):
    assert sample_to(tmp_path, "--prompt", "a cat") == 2
    assert capsys.readouterr().err.startswith("diffnas: --prompt: the model takes no text")


def test_a_model_that_fills_holes_is_refused(asked, tmp_path, capsys):
    asked["teacher"] = tiny_inpainter()
    assert sample_to(tmp_path, "--prompt", "a cat") == 2
    assert "it fills holes in images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_classes_are_random_and_follow_from_the_seed(asked, tmp_path):
    asked["teacher"] = tiny_teacher(num_class_embeds=3)
    assert sample_to(tmp_path, "--seed", "5") == 0
    shown = asked["shows"](np.array([3, 1]))["class_labels"]
    assert shown.tolist() == random_classes(4, 3, 5)[[3, 1]].tolist()


def test_an_older_grid_survives_a_failure(asked, tmp_path, monkeypatch):
    out = tmp_path / "grid.png"
    out.write_bytes(b"older")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    assert main(["sample", "a/pipeline", "--out", str(out), "--count", "4"]) == 1
    assert out.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
