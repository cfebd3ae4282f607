"""Every benchmark has a form of seconds, so that none of them rots. Its figures mean nothing."""

import json
from functools import partial

import pytest
from diffusers import UNet2DModel

from diffnas.families.loading import load_teacher
from tests.benchmarks.scripts import run

RIVALS = ["--rows", "diffnas", "control", "deep-cache", "magnitude, block losses"]
SCRIPTS = {
    "par": ["--data", "digits", "--macs", "0.5", "--seeds", "0", "--out", "{out}"],
    "recipes": ["--out", "{out}", "--recipe", "retrain.schedule=none"],
    "ablations": ["--out", "{out}", "--rows", "single path"],
    "compare": ["--out", "{out}", "--equal-compute", "--name", "compare", *RIVALS],
    "rank": ["--out", "{out}"],
    "halving": ["--out", "{out}"],
    "levels": ["--out", "{out}", "--levels", "2,2", "3,1", "--block-losses"],
}
ROWS = {
    "par": ("rows", ["control", "student", "teacher"]),
    "recipes": ("recipes", ["retrain.schedule=none"]),
    "ablations": ("recipes", ["single path"]),
    "compare": ("rows", ["control", "deep-cache", "diffnas", "magnitude, block losses"]),
    "rank": ("tau", ["denoising_loss", "frechet_distance"]),
    "halving": (
        "rows",
        ["the rule's own", "the rule's own, with halving's steps", "the winner"],
    ),
    "levels": ("rows", ["2,2", "3,1"]),
}
"""Under which key of its results a benchmark has which rows."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_from_start_to_its_table(name, small, tmp_path):
    results = tmp_path / "results"
    given = [small, *(word.format(out=tmp_path / "run") for word in SCRIPTS[name])]
    table = results / f"{name}.json"
    given += ["--results", str(results), "--quick"]
    run(name, *given)
    key, rows = ROWS[name]
    assert sorted(json.loads(table.read_text())[key]) == rows


def test_the_smallest_at_par_is_shown_with_all_that_were_tried(small, tmp_path, monkeypatch):
    def verdict(metrics):
        share = metrics["student"]["macs"] / metrics["teacher"]["macs"]
        return {"student": share, "teacher": 1.0, "error": 0.0, "par": share > 0.36}

    monkeypatch.setattr("diffnas.smallest.verdict", verdict)
    given = [small, "--out", tmp_path / "run", "--results", tmp_path, "--quick"]
    run("smallest", *given, "--set", "retrain.steps=2")
    rows = json.loads((tmp_path / "smallest.json").read_text())["rows"]
    assert {share: row["par"] for share, row in rows.items()} == {
        "0.5": True,
        "0.35": False,
        "0.42": True,
    }
    assert all(row["macs"] <= float(share) for share, row in rows.items())


def test_what_was_left_out_of_the_search_can_be_tried_again(small, tmp_path):
    given = [small, "--out", tmp_path / "run", "--results", tmp_path, "--quick"]
    run("variants", *given, "--variants", "fisher", "fed")
    losses = set()
    for name in ("fisher", "fed"):
        (row,) = json.loads((tmp_path / f"variants_{name}.json").read_text())["recipes"].values()
        losses.add(row["denoising_loss"]["mean"])
    assert len(losses) == 2


def test_a_rival_that_cannot_reach_the_budget_is_left_out_of_the_table(tmp_path):
    given = ["--out", tmp_path, "--results", tmp_path, "--quick", "--name", "compare"]
    run("compare", *given, "--macs", "0.1", "--rows", "fewer steps", "deep-cache")
    report = json.loads((tmp_path / "compare.json").read_text())
    reason = "cannot reach 0.1 of the MACs"
    assert report["rows"] == {}
    assert report["left_out"] == {"fewer steps": reason, "deep-cache": reason}


def test_published_models_are_planned_from_their_configs(tmp_path):
    run("plans", "--results", tmp_path, "--quick")
    (row,) = json.loads((tmp_path / "plans.json").read_text())["rows"].values()
    assert row["params_difference"] == 0
    assert abs(row["macs_difference"]) < 0.005
    assert 0 < row["smallest_macs"] < row["largest_macs"] < 1
    assert row["largest_is"] == "the dearest options"  # of narrower streams, for half the MACs


def test_students_made_by_hand_are_of_their_published_sizes(tmp_path):
    run("by_hand", "--results", tmp_path)
    rows = json.loads((tmp_path / "by_hand.json").read_text())["rows"]
    params = {row["student"].removeprefix("BK-SDM-"): round(row["params"] / 1e6) for row in rows}
    assert params == {"Base": 579, "Small": 482, "Tiny": 323, "SSD-1B": 1331}


def test_a_shorter_retraining_computes_less(tmp_path):
    recipes = [f"retrain.steps={steps}" for steps in (8000, 4000)]
    given = ["digits", "--teacher-steps", 8000, "--macs", 0.25, "--results", tmp_path]
    run("compute", *given, *(word for each in recipes for word in ("--recipe", each)))
    rows = json.loads((tmp_path / "compute.json").read_text())["recipes"]
    whole, half = (rows[recipe]["retrain"] for recipe in recipes)
    # 8000 steps of a quarter, 0.3 of them with a teacher's pass, beside 8000 steps of the teacher.
    assert whole == pytest.approx(0.25 + 0.3 / 3, abs=1e-3)
    assert half == pytest.approx(whole / 2, abs=1e-3)


def test_memory_of_each_stage_is_foretold_and_measured(tmp_path):
    given = ["--results", tmp_path, "--quick", "--models", "sd"]
    run("memory", *given, "--stages", "captions")
    run("memory", *given, "--stages", "supernet")
    row = json.loads((tmp_path / "memory.json").read_text())["rows"]["sd"]
    assert list(row) == ["captions", "supernet"]
    assert all(0.3 < cell["ratio"] < 3 for cell in row.values())  # tiny models: pages count


def test_what_saves_memory_saves_it_in_every_training(tmp_path):
    run("memory_large", "--results", tmp_path, "--models", "ddpm-cifar10-32")
    row = json.loads((tmp_path / "memory_large.json").read_text())["rows"]["ddpm-cifar10-32"]
    assert all(0 < row["saving"][stage] < row["defaults"][stage] for stage in row["saving"])


def test_models_of_a_gpus_size_are_measured_row_by_row(tmp_path):
    given = ["--results", tmp_path, "--quick"]
    run("gpu", *given, "--models", "sd15", "--rows", "memory", "eager")
    run("gpu", *given, "--models", "dit", "--rows", "step")
    first = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    told = run("gpu", *given, "--models", "dit", "--rows", "step", "compiled")
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    names = ["sd15 memory", "sd15 eager", "dit step"]
    assert list(rows) == [*names, "dit compiled"]
    assert {name: rows[name] for name in names} == first
    assert rows["sd15 memory"]["supernet"]["foretold"] > 0
    for kind in ("streams as they are", "narrower streams"):
        assert 0.4 < rows["sd15 eager"][kind]["macs"] <= 0.5
    assert "dit compiled: teacher (1.00 of the MACs), batch 4: " in told


def test_the_second_teacher_is_trained_on_patches_and_goes_on(tmp_path):
    run("photo_patches", "--out", tmp_path / "images", "--count", 2)
    run("photo_patches", "--out", tmp_path / "large", "--count", 2, "--side", 32)
    assert len(list((tmp_path / "large").rglob("*.png"))) == 8 * 5 * 2
    teacher = ["--data", tmp_path / "images", "--out", tmp_path / "teacher"]
    run("train_patches", *teacher, "--steps", 2)
    assert run("train_patches", *teacher, "--steps", 3).startswith("3 of 3")


def test_a_larger_teacher_is_trained_on_larger_patches(tmp_path, monkeypatch):
    form = partial(UNet2DModel, 32, block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    monkeypatch.setattr("untrained.cifar_unet", form)  # the true one takes a minute and a gigabyte
    run("photo_patches", "--out", tmp_path / "images", "--count", 2, "--side", 32)
    given = ["--data", tmp_path / "images", "--out", tmp_path / "teacher", "--steps", 1]
    run("train_patches", "--form", "cifar", *given)
    assert load_teacher(str(tmp_path / "teacher")).image_shape == (3, 32, 32)


def test_a_model_of_captions_is_trained_on_shapes_compressed_and_looked_at(tmp_path):
    images = tmp_path / "images"
    run("draw_shapes", "--out", images, "--count", 6)
    run("train_shapes", "texts", "--data", images, "--out", tmp_path / "shapes", "--quick")
    given = ["--teachers", tmp_path / "shapes", "--data", images, "--out", tmp_path / "families"]
    given += ["--control"]
    run("families", "texts", *given, "--results", tmp_path, "--quick", "--set", "retrain.steps=2")
    row = json.loads((tmp_path / "families.json").read_text())["texts"]
    assert row["macs"] <= 0.5
    for shares in (row["teacher"], row["student"], row["control"], row["autoencoder"]):
        assert 0 <= shares["all"] <= min(shares["colour"], shares["shape"]) <= 1
