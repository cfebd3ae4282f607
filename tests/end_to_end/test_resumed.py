"""``diffnas compress`` once more: what was stopped or damaged is taken up again."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffnas.retrain import Retraining
from diffnas.supernet_training import BlockTraining
from tests.end_to_end.pictures import pictures
from tests.end_to_end.runs import NAME, SEARCH, compress, weights
from tests.engine import assert_same


def architecture(run, name=NAME):
    return json.loads((run / "students" / name / "architecture.json").read_text())["blocks"]


def assert_same_student(run, other):
    assert architecture(run) == architecture(other)
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def interrupt_at(monkeypatch, stage, step):
    """Ctrl-C in the middle of a training: right after a step's update."""
    kind = {"supernet": BlockTraining, "retrain": Retraining}[stage]
    whole = kind.step

    def interrupted(self, index):
        if index == step:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(kind, "step", interrupted)


@pytest.mark.parametrize("stage", ["supernet", "retrain"])
def test_an_interrupted_training_goes_on_to_the_same_student(
    stage, teacher, finished, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    interrupt_at(monkeypatch, stage, 2)
    assert compress(teacher, out, "--macs", "0.6") == 130
    assert "the same command" in capsys.readouterr().err
    monkeypatch.undo()
    assert compress(teacher, out, "--macs", "0.6") == 0
    assert_same_student(out, finished)


def test_a_training_goes_on_from_its_checkpoint(teacher, finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr("diffnas.training.SAVE_EVERY", 0.0)
    interrupt_at(monkeypatch, "retrain", 2)
    assert compress(teacher, out, "--macs", "0.6") == 130
    monkeypatch.undo()
    (out / "log.jsonl").unlink()
    assert compress(teacher, out, "--macs", "0.6") == 0
    assert_same_student(out, finished)


def test_a_supernet_begun_in_groups_of_blocks_may_be_ended_without(
    teacher, finished, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    monkeypatch.setattr("diffnas.training.SAVE_EVERY", 0.0)
    interrupt_at(monkeypatch, "supernet", 2)
    assert compress(teacher, out, "--macs", "0.6", "--set", "supernet.groups=2") == 130
    monkeypatch.undo()
    assert compress(teacher, out, "--macs", "0.6", "--until", "supernet") == 0
    ours, theirs = (
        load_file(run / f"{SEARCH}/supernet/supernet.safetensors") for run in (out, finished)
    )
    assert_same(ours, theirs)


def test_until_stops_after_a_stage_and_the_run_goes_on(teacher, tmp_path, finished):
    out = tmp_path / "run"
    made = {
        "supernet": f"{SEARCH}/supernet/supernet.safetensors",
        "scores": f"{SEARCH}/scores.safetensors",
        "architecture": f"students/{NAME}/architecture.json",
        "student": f"students/{NAME}/pipeline",
        "metrics": f"students/{NAME}/metrics.json",
    }
    for count, stage in enumerate(made, 1):
        assert compress(teacher, out, "--macs", "0.6", "--until", stage) == 0
        assert [(out / path).exists() for path in made.values()] == [True] * count + [False] * (
            len(made) - count
        )
        assert not (out / "report.html").exists()
    assert compress(teacher, out, "--macs", "0.6") == 0
    assert_same_student(out, finished)


@pytest.mark.parametrize(
    "name",
    [
        f"{SEARCH}/trunk.safetensors",
        f"{SEARCH}/supernet/supernet.safetensors",
        f"{SEARCH}/scores.safetensors",
        f"students/{NAME}/architecture.json",
        f"students/{NAME}/metrics.json",
    ],
)
def test_a_damaged_file_is_named_and_made_again(name, run, teacher, finished, capsys):
    (run / name).write_bytes((run / name).read_bytes()[:40])
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert f"{run / name}: damaged" in capsys.readouterr().err.replace("\n", "")
    assert_same_student(run, finished)


def test_a_student_whose_weights_are_cut_short_is_made_again(run, teacher, finished, capsys):
    weights_file = next((run / "students" / NAME / "pipeline" / "unet").glob("*.safetensors"))
    weights_file.write_bytes(weights_file.read_bytes()[:500])
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert "pipeline: damaged" in capsys.readouterr().err.replace("\n", "")
    assert_same_student(run, finished)


@pytest.mark.parametrize(
    "lost",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffnas_student_*.py",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_student_that_lost_a_file_is_saved_again_with_its_weights(
    lost, run, teacher, finished, monkeypatch, capsys
):
    folder = run / "students" / NAME / "pipeline"
    (folder / "README.md").write_text("Mine.")
    (there,) = folder.glob(lost)
    there.unlink()
    interrupt_at(monkeypatch, "retrain", 0)  # it is not trained again
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert "saved again, with the weights it has" in capsys.readouterr().err.replace("\n", " ")
    assert there.exists()
    assert (folder / "README.md").read_text() == "Mine."
    assert_same_student(run, finished)
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert "saved again" not in capsys.readouterr().err


def test_a_repair_that_is_stopped_is_taken_up_again(run, teacher, finished, monkeypatch):
    lost = run / "students" / NAME / "pipeline" / "model_index.json"
    lost.unlink()
    interrupt_at(monkeypatch, "retrain", 0)  # it is not trained again
    with monkeypatch.context() as stopped:

        def stop(*_, **__):
            raise KeyboardInterrupt

        stopped.setattr("diffnas.making.save_pipeline", stop)
        assert compress(teacher, run, "--macs", "0.6") == 130
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert lost.exists()
    assert_same_student(run, finished)


def test_a_student_that_lost_a_weight_too_is_made_again_from_its_beginning(run, teacher, finished):
    folder = run / "students" / NAME / "pipeline"
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (file,) = folder.glob("unet/*.safetensors")
    kept = load_file(file)
    kept.popitem()
    save_file(kept, file)
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert_same_student(run, finished)


def test_a_folder_in_the_students_place_is_refused_before_its_training(
    run, teacher, monkeypatch, capsys
):
    student = run / "students" / NAME
    (student / "student.json").unlink()
    (student / "pipeline" / "model_index.json").unlink()
    interrupt_at(monkeypatch, "retrain", 0)
    assert compress(teacher, run, "--macs", "0.6") == 2
    assert "pipeline exists and is not a pipeline folder" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_other_images_than_before_are_said(run, teacher, tmp_path, capsys):
    folder = pictures(tmp_path / "photos")

    def told(held_out):
        settings = {"data.held_out": held_out, "evaluate.samples": "98"}
        flags = ("--macs", "0.6", "--until", "plan")
        assert compress(teacher, run, *flags, data=folder, **settings) == 0
        return capsys.readouterr().err.replace("\n", " ")

    assert "not the images that this run had before, which were of digits" in told("0.5")
    assert "had before" not in told("0.5")
    assert "are not those that this run had before" in told("0.51")


@pytest.mark.parametrize("text", ["word", "a: [", "\udcff"])
def test_a_damaged_note_of_settings_or_plan_does_not_stop_the_run(text, run, teacher):
    for name in ("settings.yaml", "plan.json"):
        (run / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert json.loads((run / "plan.json").read_text())["format"] == 1
