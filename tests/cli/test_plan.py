"""``diffnas plan``: what is printed of a plan, for people and for programs."""

import json
from types import ModuleType
from typing import Any

import pytest

from diffnas.cli import main
from tests.report.runs import TEACHER
from tests.report.runs import plan as made_up


def made(**more: Any) -> dict[str, Any]:
    """A plan as ``make_plan`` returns it."""
    return {
        **made_up(),
        "hours": {"supernet": 0.15, "evaluate": 0.001},
        "memory_bytes": {"retrain": 3 * 2**29},
        "budget": {
            "macs": {
                "limit": 8_650_000,
                "teacher": 17_300_000,
                "smallest": 5_363_000,
                "reachable": True,
            }
        },
        "notes": ["of something"],
        **more,
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace planning; what it was asked and, under ``plan``, what it answers."""
    seen: dict[str, Any] = {"plan": made()}

    def make_plan(model: str, budget: Any, settings: Any, **further: Any) -> dict[str, Any]:
        seen.update(model=model, budget=budget, settings=settings, **further)
        return seen["plan"]

    module = ModuleType("diffnas.plan")
    module.make_plan = make_plan
    monkeypatch.setitem(__import__("sys").modules, "diffnas.plan", module)
    return seen


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Printed lines, runs of spaces made one."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_costs_are_given_with_their_shares(capsys, asked):
    assert main(["plan", "digits"]) == 0
    printed = lines(capsys)
    assert printed[0] == "digits: 15 925 248 architectures"
    assert "teacher 1.20 M 17.3 M 17.0 M" in printed
    assert "smallest 372 k (0.31) 5.36 M (0.31) 5.27 M (0.31)" in printed


def test_one_architecture_is_no_several(capsys, asked):
    asked["plan"]["subnets"] = 1
    assert main(["plan", "digits"]) == 0
    assert lines(capsys)[0] == "digits: 1 architecture"


def test_every_slot_is_listed_with_its_options(capsys, asked):
    assert main(["plan", "digits"]) == 0
    printed = lines(capsys)
    first = printed.index("down_blocks.0 25.0 % 48 resnets.0 teacher width 0.5 width 0.25 skip")
    assert printed[first + 1] == "attentions.0 teacher width 0.5 width 0.25 skip"


def test_a_block_without_slots_is_said_once_to_be_left_as_it_is(capsys, asked):
    asked["plan"]["blocks"][0]["slots"] = []
    assert main(["plan", "digits"]) == 0
    assert "down_blocks.0 25.0 % 48 down_blocks.0 left as it is" in lines(capsys)


def test_budgets_time_memory_and_reasons_are_told(capsys, asked):
    assert main(["plan", "digits", "--macs", "0.5", "--latency", "12ms"]) == 0
    printed = lines(capsys)
    assert "--macs 0.5 of the teacher's: within reach; the smallest is 5.36 M (0.31)" in printed
    assert "--latency 12ms: known only once measured, by compress" in printed
    assert "note: of something" in printed
    assert "left as it is: up_blocks.1: no slot in it" in printed
    assert "expected time: supernet 9 min, evaluate 4 s" in printed
    assert "expected memory: retrain 1.50 GiB" in printed
    assert "supernet.steps: 300, as the demo asks for" in printed


def test_a_budget_out_of_reach_is_told_with_what_is_in_reach(capsys, asked):
    found = {"limit": 2**20, "teacher": 2**22, "smallest": 2**21, "reachable": False}
    asked["plan"] = made(budget={"memory": found})
    for given, smallest in (("1MiB", "2.00 MiB"), ("900KB", "2097 KB")):
        assert main(["plan", "digits", "--memory", given]) == 0
        told = f"--memory {given}: out of reach; the smallest is {smallest} (0.50)"
        assert told in lines(capsys)


def test_json_is_the_plan(capsys, asked):
    assert main(["plan", "digits", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == asked["plan"]
    assert answer["teacher"] == TEACHER


def test_flags_reach_the_plan(asked):
    flags = ["--macs", "30%", "--images", "5000", "--batch-size", "8", "--revision", "abc"]
    assert main(["plan", "a/model", *flags]) == 0
    assert asked["model"] == "a/model"
    assert asked["budget"].name == "macs-0.3"
    assert asked["images"] == 5000
    assert asked["settings"].supernet.batch_size == 8
    assert asked["settings"].retrain.batch_size == 8
    assert asked["revision"] == "abc"


def test_flags_win_over_assignments_and_those_over_the_file(asked, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nmax_steps: 1\nprecision: bf16\n")
    given = ["--settings", str(file), "--set", "seed=2", "--set", "max_steps=2", "--seed", "3"]
    assert main(["plan", "digits", *given]) == 0
    settings = asked["settings"]
    assert (settings.seed, settings.max_steps, settings.precision) == (3, 2, "bf16")
