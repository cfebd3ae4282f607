"""The front of a run folder, from Python and from the command line."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

import diffnas
from diffnas import score_table
from diffnas.architecture import BlockScores, Scores, space_to_json
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli import main
from diffnas.pareto import read_scores
from diffnas.select import select
from tests.select.tables import three_blocks


@pytest.fixture
def run(tmp_path):
    """A run that selects by block losses, left after its scores."""
    write_json(tmp_path / "plan.json", {"format": 1})
    (tmp_path / "settings.yaml").write_text("score:\n  by: block\n")
    score_table.save(three_blocks(), tmp_path / "scores.safetensors", "made up")
    return tmp_path


def test_it_is_of_the_space_that_was_scored_whatever_was_planned_since(run):
    before = diffnas.front(run)
    space = space_to_json(three_blocks().space)
    planned = {**space, "blocks": space["blocks"][:-1]}
    write_json(run / "plan.json", {"format": 1, "space": planned})
    assert diffnas.front(run) == before


@pytest.mark.parametrize(("rule", "loss"), [("global-exact", "loss"), ("local", "worst")])
def test_it_goes_from_the_teacher_to_the_smallest_and_dearer_points_have_less_loss(run, rule, loss):
    found = diffnas.front(run, points=30, rule=rule)
    assert found[0].macs == 1
    costs, losses = [p.macs for p in found], [getattr(p, loss) for p in found]
    assert costs == sorted(set(costs), reverse=True)
    assert losses == sorted(losses)
    assert len(found) > 5


@pytest.mark.parametrize("rule", ["local", "global-exact"])
def test_a_point_is_what_the_budget_alone_would_give(run, rule):
    chosen = select(three_blocks(), parse_budget(params=0.5), rule)
    point = min(
        diffnas.front(run, metric="params", rule=rule, points=400),
        key=lambda point: (abs(point.params - chosen.cost.params / 431), point.loss),
    )
    assert point.cost == chosen.cost
    assert point.architecture == chosen.architecture


def test_the_command_prints_a_line_a_point(run, capsys):
    assert main(["front", str(run), "--points", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "MACs" in lines[0]
    assert len([line for line in lines[1:] if (line and line[0].isdigit()) or "1.000" in line]) >= 3
    assert lines[-1].endswith("errors are over the teacher's own")


def test_the_command_prints_json_for_programs(run, capsys):
    assert main(["front", str(run), "--points", "5", "--json", "--rule", "random"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rule"] == "random"
    assert {"macs", "params", "loss", "worst", "architecture"} <= found["points"][0].keys()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metric", "latency"], "--metric latency: unknown; one of macs, params"),
        (["--rule", "locl"], "--rule locl: unknown; did you mean 'local'?"),
        (["--points", "1"], "--points 1: a front needs 2 or more"),
        (["--points", "x"], "--points x: must be a whole number above 0"),
    ],
)
def test_mistakes_are_told_in_a_line(run, capsys, arguments, told):
    assert main(["front", str(run), *arguments]) == 2
    assert capsys.readouterr().err == f"diffnas: {told}\n"


def test_a_folder_without_scores_says_how_to_get_them(run, capsys):
    (run / "scores.safetensors").unlink()
    assert main(["front", str(run)]) == 2
    told = capsys.readouterr().err
    assert (
        "no whole scores.safetensors, which selection goes by; run its 'diffnas compress'" in told
    )
    (run / "plan.json").unlink()
    assert main(["front", str(run)]) == 2
    assert "no run folder; name the --out of a 'diffnas compress'" in capsys.readouterr().err


def test_what_is_no_folder_and_settings_that_are_none_are_told(run, capsys):
    assert main(["front", str(run / "plan.json")]) == 2
    assert "plan.json: no such folder" in capsys.readouterr().err
    (run / "settings.yaml").write_text("score: 5\n")
    assert main(["front", str(run)]) == 2
    assert "no whole output-errors.safetensors" in capsys.readouterr().err


def test_its_randomness_is_the_runs(run):
    (run / "settings.yaml").write_text("seed: 5\nscore:\n  by: block\n")
    found = diffnas.front(run, rule="random")
    assert found == diffnas.front(run, rule="random", seed=5)
    assert found != diffnas.front(run, rule="random", seed=0)


def test_random_architectures_are_of_all_that_were_scored_as_compress_draws_them(run, capsys):
    (run / "settings.yaml").write_text("select:\n  rule: random\n")  # no errors are measured for it
    assert diffnas.front(run, rule="random", seed=1)
    assert main(["front", str(run)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "no whole output-errors.safetensors" in told
    assert "again, now by --rule global-exact, with '--until scores'" in told


def test_a_rule_that_nobody_knows_is_told_before_scores_are_missed(tmp_path, capsys):
    assert main(["front", str(tmp_path), "--rule", "foo"]) == 2
    assert "--rule foo: unknown" in capsys.readouterr().err


def test_it_is_of_the_last_search_alone(run):
    first, again = run / "trunk-3" / "scores.safetensors", run / "trunk-2" / "scores.safetensors"
    for file, search in ((first, "before"), (again, "last")):
        file.parent.mkdir()
        score_table.save(replace(three_blocks(), search=search), file, "made up")
    for age, file in enumerate((again, first, run / "scores.safetensors")):
        os.utime(file, (1e9 - age, 1e9 - age))
    assert [table.search for table in read_scores(run)] == ["last"]
    os.utime(first, (2e9, 2e9))
    assert [table.search for table in read_scores(run)] == ["before"]


@pytest.mark.parametrize("damaged", [True, False])
def test_block_losses_do_not_stand_in_for_errors_that_are_not_there(run, capsys, damaged):
    (run / "settings.yaml").write_text("score:\n  by: output\n")
    if damaged:
        (run / "output-errors.safetensors").write_bytes(b"cut off")
    assert main(["front", str(run)]) == 2
    assert "no whole output-errors.safetensors, which selection goes by" in capsys.readouterr().err


@pytest.mark.parametrize(("by", "factor"), [("output", 2), ("block", 1)])
def test_it_goes_by_what_the_run_selects_by(run, by, factor):
    table = three_blocks()
    errors = {
        name: BlockScores(each.choices, 2 * each.losses) for name, each in table.blocks.items()
    }
    score_table.save(Scores(table.space, errors), run / "output-errors.safetensors", "made up")
    (run / "settings.yaml").write_text(f"score:\n  by: {by}\n")
    (found,) = read_scores(run)
    for name, each in table.blocks.items():
        np.testing.assert_allclose(found.blocks[name].losses, factor * each.losses, rtol=1e-6)
