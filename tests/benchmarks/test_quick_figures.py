"""Benchmarks of time, of a teacher and of the search, in their forms of seconds.

That they come to their tables is all that is tested: no figure of theirs decides anything here.
"""

import json

import cores
import demo
import pytest

from diffnas.cli import main
from tests.benchmarks.scripts import ROOT, run
from tests.end_to_end.runs import compress


def table(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_latencies_of_students_of_half_the_macs(tmp_path):
    run("latency", "--quick", "--threads", 1, "--batches", 1, "--results", tmp_path)
    found = table(tmp_path, "latency")
    assert list(found["students"]) == ["random 0", "random 1", "random 2", "half inner widths"]
    assert all(0 < row["macs"] < 1 for row in found["students"].values())
    assert "upsamplers folded" in found["options"]


def test_a_student_beside_its_teacher_in_another_runtime(tmp_path):
    told = run("exports", "--quick", "--formats", "onnx", "--results", tmp_path)
    row = table(tmp_path, "exports")["formats"]["onnx"]
    assert row["student"]["bytes"] < row["teacher"]["bytes"]
    assert "student: 0.500 of the MACs" in told


def test_latencies_that_budgets_foretell(tmp_path, monkeypatch):
    def by_weight(call, _):
        return 1000.0 + sum(each.numel() for each in call.func.parameters())

    # A real clock may find that no student keeps the limit.
    monkeypatch.setattr("diffnas.measure.latency._time_ms", by_weight)
    given = ["--limits", 0.8, "--seeds", 0, "--rounds", 1, "--threads", 1]
    told = run("latency_budget", "--quick", *given, "--results", tmp_path)
    (row,) = table(tmp_path, "latency_budget")["rows"]
    assert row["measured"] <= 0.8
    assert row["off"] == pytest.approx(row["foretold"] / row["again"] - 1, abs=1e-3)
    assert row["again"] == row["measured"]
    assert "1 of 1 foretold within 10%" in told


def test_the_engines_steps_and_tables_beside_their_floors(tmp_path):
    run("speed", "--quick", "--threads", 1, "--teachers", "digits", "--results", tmp_path)
    assert {"step", "scores", "retrain"} <= set(table(tmp_path, "speed")["digits"])


def test_quality_against_steps_and_its_picture(small, tmp_path):
    folders = ["--out", tmp_path / "run", "--results", tmp_path, "--docs", tmp_path]
    few = ["--set", "space.max_subnets=16", "--set", "score.candidates=4"]
    run("curve", small, "--quick", "--macs", 0.6, *few, *folders)
    rows = table(tmp_path, "curve")["rows"]
    assert [row["steps"] for row in rows] == [2, 4]
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")


def test_the_search_inside_blocks_beside_whole_tables(small, tmp_path):
    out, whole = tmp_path / "run", {"score__by": "block"}
    assert compress(small, out, "--macs", "0.6", "--until", "scores", **whole) == 0
    run("block_search", out, "--seeds", 1, "--results", tmp_path)
    blocks = table(tmp_path, "block_search")["blocks"]
    assert "mid_block" in blocks
    assert all(0 <= row["search"]["mean"] <= 1 for row in blocks.values())
    assert blocks["up_blocks.0"]["search"]["mean"] > 0


def test_the_first_teacher_is_trained_and_reported_on(tmp_path):
    run("train_digits", "teacher", "--steps", 2, "--out", tmp_path / "teacher")
    given = ["--count", 80, "--seeds", 1, "--sampling-steps", 2, "--results", tmp_path]
    run("teacher_report", "digits", "--full", tmp_path / "teacher", *given)
    assert table(tmp_path, "digits_teacher")["full"]["frechet_distance"] > 1
    run("choose_sampler", "--count", 80, "--rows", 1, "--results", tmp_path)
    assert [row["steps"] for row in table(tmp_path, "choose_sampler")["rows"]] == [10]


def test_a_second_cores_share_is_of_the_same_turns_first(tmp_path, monkeypatch):
    def in_this_process(words, **_):
        assert main(words[words.index("diffnas") + 1 :]) == 0

    monkeypatch.setattr(cores.subprocess, "run", in_this_process)
    one = cores.stages(tmp_path / "run", {0}, steps=4, subnets=4)
    assert set(one) == set(cores.STAGES)
    # Of three turns on a machine that slows down, the middle share is not the middle times' share.
    turns = [
        {way: {stage: share * slow * one[stage] for stage in one} for way, share in ways.items()}
        for slow, ways in (
            (1, {"least": 0.5, "one": 1.0, "two": 0.9, "two, one of them busy": 0.9}),
            (2, {"least": 0.5, "one": 1.0, "two": 0.5, "two, one of them busy": 0.8}),
            (4, {"least": 0.5, "one": 1.0, "two": 0.6, "two, one of them busy": 0.7}),
        )
    ]
    found = cores.shares(turns)
    expected = {"least": 0.5, "two": 0.6, "two, one of them busy": 0.8}
    for way, share in expected.items():
        assert found[way]["all"]["median"] == pytest.approx(share)
        assert found[way]["retrain"]["median"] == pytest.approx(share)


def test_the_demo_is_installed_and_run_as_the_readme_has_it():
    install, demo_ = demo.commands((ROOT / "README.md").read_text("utf-8"))
    assert install.endswith("pip install -q -c constraints.txt -e .")
    assert demo_ == ".venv/bin/diffnas demo"


def test_the_demos_student_is_told_as_shares_of_its_teacher(small, tmp_path):
    assert compress(small, tmp_path / "run", "--macs", "0.6") == 0
    metrics = json.loads((tmp_path / "run/students/macs-0.6/metrics.json").read_text())
    found = demo.ratios(metrics)
    assert found["macs"] <= 0.6
    assert found["frechet_distance"] > 0
