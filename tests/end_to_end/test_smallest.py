"""``--smallest`` on a tiny run; what is at par is decided by size, so that it can be foretold."""

import json

from diffnas import smallest
from tests.end_to_end.runs import compress


def par_from(share, monkeypatch):
    measured = smallest.verdict

    def verdict(metrics):
        found = metrics["student"]["macs"] / metrics["teacher"]["macs"]
        return {**measured(metrics), "par": found >= share}

    monkeypatch.setattr(smallest, "verdict", verdict)


def test_budgets_fall_until_par_is_lost_and_the_last_at_par_is_shown(
    teacher, run, monkeypatch, capsys
):
    par_from(0.6, monkeypatch)
    assert compress(teacher, run, "--smallest") == 0
    said = capsys.readouterr()
    assert "50% of the MACs" in said.err
    assert "evaluate.seeds=(0, 1, 2)" in said.err
    tried = json.loads((run / "smallest.json").read_text())["tried"]
    assert list(tried) == ["0.5", "0.7", "0.59"]
    assert "macs-0.7" in said.out
    students = {path.name for path in (run / "students").iterdir()}
    assert {"macs-0.5", "macs-0.59", "macs-0.7"} <= students
    assert compress(teacher, run, "--smallest") == 0  # all of it is there already


def test_where_nothing_is_at_par_it_says_so(teacher, run, monkeypatch, capsys):
    par_from(1.1, monkeypatch)
    assert compress(teacher, run, "--smallest") == 1
    assert "no student at par up to 85% of the teacher's MACs" in capsys.readouterr().err
