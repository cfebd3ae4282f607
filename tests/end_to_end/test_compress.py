"""``diffnas compress`` as a user gives it: what a run leaves."""

import json
import shutil

import torch
from diffusers import DDPMPipeline, DiffusionPipeline

import diffnas
from diffnas.cli import main
from diffnas.families.sampling import sample_images
from tests.end_to_end.runs import NAME, SEARCH, compress, weights
from tests.models import tiny_pipeline

SEARCHED = (f"{SEARCH}/supernet/supernet.safetensors", f"{SEARCH}/scores.safetensors")


def times(run, *names):
    return {name: (run / name).stat().st_mtime_ns for name in names}


def test_a_run_leaves_the_documented_files(finished):
    left = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    student = f"students/{NAME}"
    assert {
        "settings.yaml",
        "plan.json",
        "log.jsonl",
        "report.html",
        f"{SEARCH}/trunk.safetensors",
        f"{SEARCH}/scores.safetensors",
        f"{SEARCH}/supernet/supernet.safetensors",
        f"{student}/architecture.json",
        f"{student}/metrics.json",
        f"{student}/samples.png",
        f"{student}/pipeline/model_index.json",
        f"{student}/pipeline/README.md",
    } <= left
    assert not [name for name in left if ".part" in name or ".tmp" in name]


def test_a_finished_run_has_no_empty_folder(finished):
    folders = (path for path in finished.rglob("*") if path.is_dir())
    assert not [path for path in folders if not any(path.iterdir())]


def test_what_may_be_handed_on_holds_no_path_of_this_machine(finished, teacher):
    student = finished / "students" / NAME
    texts = [*student.rglob("*.json"), *student.rglob("*.md")]
    for file in [file for file in texts if file.name != "metrics.json"]:
        assert str(teacher.parent) not in file.read_text(), file
    card = (student / "pipeline" / "README.md").read_text()
    assert f"A smaller `{teacher.name}`" in card
    assert "trust_remote_code=True" in card


def card(run):
    return run / "students" / NAME / "pipeline" / "README.md"


def test_the_model_card_has_what_was_measured(finished):
    text = card(finished).read_text()
    assert "| Fréchet distance, held-out images |" in text
    assert "72 for each sampling seed (0), sampler dpmsolver, 2 steps" in text
    assert "359 held-out and 1438 seen images of `digits`" in text
    assert "not measured yet" not in text


def test_before_it_is_measured_the_model_card_says_so(run, teacher):
    flags = ("--macs", "0.6", "--until", "student")
    assert compress(teacher, run, *flags, retrain__steps="6") == 0
    assert "not measured yet" in card(run).read_text()


def test_another_evaluation_writes_the_model_card_anew(run, teacher):
    assert compress(teacher, run, "--macs", "0.6", evaluate__sampler_steps="3") == 0
    assert "sampler dpmsolver, 3 steps" in card(run).read_text()


def test_what_somebody_added_to_the_model_card_stays_in_a_finished_run(run, teacher):
    mine = card(run).read_text() + "Thanks to all.\n"
    card(run).write_text(mine)
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert card(run).read_text() == mine


def test_metrics_hold_protocol_and_both_sides(finished):
    metrics = json.loads((finished / "students" / NAME / "metrics.json").read_text())
    assert {"sampler", "steps", "samples", "seeds", "features"} <= metrics["protocol"].keys()
    for side in ("teacher", "student"):
        assert {
            "params",
            "macs",
            "macs_without_attention",
            "latency_ms",
            "memory_bytes",
            "frechet_distance",
            "kernel_distance",
            "frechet_distance_seen",
        } <= metrics[side].keys()
    assert metrics["student"]["macs"] <= 0.6 * metrics["teacher"]["macs"]


def test_the_student_is_a_pipeline_that_diffusers_samples_from(finished):
    folder = finished / "students" / NAME / "pipeline"
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    images = pipeline(batch_size=1, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 8, 8, 1)


def test_a_finished_run_is_left_as_it_is(run, teacher):
    files = (
        f"{SEARCH}/supernet/supernet.safetensors",
        f"{SEARCH}/scores.safetensors",
        f"students/{NAME}/metrics.json",
    )
    before = times(run, *files)
    assert compress(teacher, run, "--macs", "0.6") == 0
    assert times(run, *files) == before


def test_another_budget_takes_only_selection_and_retraining(run, teacher):
    files = (
        f"{SEARCH}/supernet/supernet.safetensors",
        f"{SEARCH}/scores.safetensors",
        f"students/{NAME}/metrics.json",
    )
    before = times(run, *files)
    assert compress(teacher, run, "--params", "0.7") == 0
    assert times(run, *files) == before
    metrics = json.loads((run / "students" / "params-0.7" / "metrics.json").read_text())
    assert metrics["student"]["params"] <= 0.7 * metrics["teacher"]["params"]


def test_a_much_smaller_budget_gets_a_narrower_trunk_beside_the_first(run, teacher, capsys):
    before = times(run, *SEARCHED)
    assert compress(teacher, run, "--macs", "0.3") == 0
    assert times(run, *SEARCHED) == before
    assert (run / "trunk-2" / "scores.safetensors").exists()
    chosen = json.loads((run / "students" / "macs-0.3" / "architecture.json").read_text())
    assert chosen["trunk"] == [2, 4]
    assert chosen["edits"][""] == {"kind": "trunk", "groups": 2}
    page = (run / "report.html").read_text()
    assert "Streams between layers keep 2 of 4 norm groups" in page
    assert "Streams between layers keep 3 of 4 norm groups" in page
    capsys.readouterr()
    assert main(["front", str(run), "--json", "--points", "5"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert {point["trunk"] for point in points} == {0.75, 0.5}


def test_joined_budgets_all_hold(run, teacher):
    assert compress(teacher, run, "--params", "0.6", "--macs", "0.7", "--memory", "0.95") == 0
    name = "macs-0.7-params-0.6-memory-0.95"
    metrics = json.loads((run / "students" / name / "metrics.json").read_text())
    sides = metrics["student"], metrics["teacher"]
    shares = {key: sides[0][key] / sides[1][key] for key in ("params", "macs", "memory_bytes")}
    assert shares["params"] <= 0.6
    assert shares["macs"] <= 0.7
    assert shares["memory_bytes"] <= 0.95


def test_a_tolerance_is_the_local_rules(run, teacher, capsys):
    assert compress(teacher, run, "--tolerance", "50", "--rule", "random") == 2
    assert "--rule random has none" in capsys.readouterr().err
    assert compress(teacher, run, "--tolerance", "50") == 0
    made = json.loads((run / "students" / "tolerance-50" / "architecture.json").read_text())
    assert (made["rule"], made["tolerance"]) == ("local", 50)


def test_a_latency_budget_is_measured_on_this_device(run, teacher):
    # So long a time that no machine's speed decides.
    assert compress(teacher, run, "--latency", "100s", "--until", "architecture") == 0
    assert (run / "students" / "latency-100s" / "architecture.json").exists()


def test_groups_of_blocks_train_the_same_supernet_which_is_not_made_again(run, teacher, capsys):
    groups = ["--set", "supernet.groups=2", "--set", "retrain.gradient_checkpointing=true"]
    assert compress(teacher, run, "--macs", "0.6", *groups) == 0
    assert "again" not in capsys.readouterr().err


def test_changed_settings_redo_the_stages_they_touch_and_say_so(run, teacher, capsys):
    before = times(run, *SEARCHED)
    old = weights(run)
    assert compress(teacher, run, "--macs", "0.6", retrain__steps="6") == 0
    assert times(run, *SEARCHED) == before
    assert "retrain.steps 4 -> 6" in capsys.readouterr().err
    assert any(not torch.equal(old[key], value) for key, value in weights(run).items())


def test_a_teacher_in_half_precision_makes_another_student_and_is_judged_as_loaded(
    run, teacher, capsys
):
    old = weights(run)
    before = times(run, "teacher.json", f"{SEARCH}/trunk.safetensors")
    assert compress(teacher, run, "--macs", "0.6", teacher_precision="bf16") == 0
    assert "teacher_precision fp32 -> bf16" in capsys.readouterr().err
    assert times(run, *before) == before
    new = weights(run)
    assert all(value.dtype == torch.float32 for value in new.values())
    assert any(not torch.equal(old[key], value) for key, value in new.items())
    metrics = json.loads((run / "students" / NAME / "metrics.json").read_text())
    assert metrics["teacher"]["memory_bytes"] > 4 * metrics["teacher"]["params"]


def test_a_new_student_is_not_shown_with_an_old_ones_metrics(run, teacher, capsys):
    flags = ("--macs", "0.6", "--until", "student")
    assert compress(teacher, run, *flags, retrain__steps="6") == 0
    assert "teacher" not in capsys.readouterr().out
    assert not (run / "students" / NAME / "metrics.json").exists()
    assert not (run / "students" / NAME / "samples.png").exists()


def test_the_page_says_of_a_trial_that_it_is_one(run, teacher):
    flags = ("--params", "0.7", "--max-steps", "4", "--until", "student")
    assert compress(teacher, run, *flags, retrain__steps="9") == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert page.count("max_steps cut its retraining short after 4 of 9 steps") == 1


def test_a_cap_that_is_never_reached_makes_no_trial(run, teacher):
    flags = ("--params", "0.7", "--max-steps", "4", "--until", "student")
    assert compress(teacher, run, *flags, retrain__steps="4") == 0
    assert main(["report", str(run)]) == 0
    assert "cut its retraining short" not in (run / "report.html").read_text()


def test_an_earlier_stage_shows_no_table_of_a_later_one(run, teacher, capsys):
    assert compress(teacher, run, "--macs", "0.6", "--until", "supernet", "--seed", "7") == 0
    assert "teacher" not in capsys.readouterr().out


def test_a_run_of_another_teacher_is_refused(run, tmp_path, capsys):
    tiny_pipeline(seed=1).save_pretrained(tmp_path / "other")
    assert compress(tmp_path / "other", run, "--macs", "0.6") == 2
    assert "another teacher" in capsys.readouterr().err


def test_a_run_of_a_newer_format_is_refused(run, teacher, capsys):
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, "format": 99}))
    assert compress(teacher, run, "--macs", "0.6") == 2
    assert "newer" in capsys.readouterr().err


def test_a_budget_out_of_reach_is_refused_before_any_training(teacher, tmp_path, capsys):
    out = tmp_path / "run"
    assert compress(teacher, out, "--macs", "0.001") == 2
    assert "smallest reachable" in capsys.readouterr().err
    assert not out.exists()


def test_a_diverging_training_stops_names_its_step_and_keeps_what_was_good(run, teacher, capsys):
    shutil.rmtree(run / "students")
    before = times(run, f"{SEARCH}/supernet/supernet.safetensors")
    status = compress(teacher, run, "--macs", "0.6", retrain__learning_rate="1e30")
    assert status == 1
    assert "retrain step" in capsys.readouterr().err
    assert times(run, f"{SEARCH}/supernet/supernet.safetensors") == before


def test_no_more_samples_are_drawn_at_once_than_the_evaluation_batch(run, teacher, monkeypatch):
    batches = []

    def recorded(*given, batch_size, **settings):
        batches.append(batch_size)
        return sample_images(*given, batch_size=batch_size, **settings)

    monkeypatch.setattr("diffnas.families.teacher.sample_images", recorded)
    (run / "students" / NAME / "samples.png").unlink()
    assert compress(teacher, run, "--macs", "0.6", evaluate__batch_size="24") == 0
    assert set(batches) == {24}
    assert (run / "students" / NAME / "samples.png").exists()


def test_report_is_made_again_by_its_own_command(run, capsys):
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "DiffNAS" in (run / "report.html").read_text()


def test_the_python_front_does_the_same(teacher, run):
    made = diffnas.compress(
        teacher,
        data="digits",
        out=run,
        macs=0.6,
        settings=run / "settings.yaml",
    )
    assert made.name == NAME
    assert isinstance(made.students[NAME].pipeline(), DDPMPipeline)
