"""Selection rules that other packages declare."""

from importlib.metadata import EntryPoint

import pytest

from diffnas.budget import parse_budget
from diffnas.errors import UserError
from diffnas.select import check_rule, made_of, select
from tests.select.tables import three_blocks


def declare(monkeypatch, value, name="theirs"):
    entry = EntryPoint(name, value, "diffnas.rules")
    monkeypatch.setattr("diffnas.select.entry_points", lambda group: [entry])


def test_a_rule_of_another_package_is_used_by_its_name(monkeypatch):
    declare(monkeypatch, "tests.select.test_other_packages:cheapest_macs")
    table = three_blocks()
    assert select(table, parse_budget(macs=0.5), "theirs").cost.macs == 26  # what no slot reaches


def cheapest_macs(table, seed):
    return {name: int(costs.argmin()) for name, costs in table.costs["macs"].items()}, 0.0


@pytest.mark.parametrize(
    "value", ["tests.select.nowhere:rule", "tests.select.test_other_packages:none"]
)
def test_a_rule_of_another_package_that_does_not_load_is_refused_before_any_work(
    monkeypatch, value
):
    declare(monkeypatch, value)
    with pytest.raises(UserError, match=rf"--rule theirs: {value} does not load"):
        check_rule("theirs")


def test_a_rule_of_another_package_whose_name_can_be_no_folders_is_refused(monkeypatch):
    declare(monkeypatch, "tests.select.test_other_packages:cheapest_macs", "the/irs")
    with pytest.raises(UserError, match="--rule the/irs: students' folders are named after"):
        check_rule("the/irs")


def no_rows(table, seed):
    return {}, 0.0


def too_far(table, seed):
    return dict.fromkeys(table.losses, 10**6), 0.0


def no_figure(table, seed):
    return cheapest_macs(table, seed)[0]


@pytest.mark.parametrize(
    ("rule", "words"), [("no_rows", "KeyError"), ("too_far", "range"), ("no_figure", "unpack")]
)
def test_what_a_rule_of_another_package_does_wrong_is_laid_to_it(monkeypatch, rule, words):
    declare(monkeypatch, f"tests.select.test_other_packages:{rule}")
    with pytest.raises(UserError, match=rf"--rule theirs: it fails \(.*{words}.*at fault"):
        select(three_blocks(), parse_budget(macs=0.5), "theirs")


def all_of_the_teacher(table, seed):
    return dict.fromkeys(table.losses, 0), 0.0


def test_a_rule_of_another_package_that_passes_the_limit_is_told_from_one_that_cannot_help_it(
    monkeypatch,
):
    declare(monkeypatch, "tests.select.test_other_packages:all_of_the_teacher")
    with pytest.raises(UserError, match=r"--rule theirs: what it chose is not within --macs 0\.5"):
        select(three_blocks(), parse_budget(macs=0.5), "theirs")


def test_a_choice_hangs_on_the_source_of_a_rule_of_another_package(monkeypatch):
    declare(monkeypatch, "tests.select.test_other_packages:cheapest_macs")
    name, source = made_of("theirs")
    assert name == "theirs"
    assert "def cheapest_macs(table, seed):" in source
    assert made_of("local") == ("local",)
