"""Budgets as people write them."""

import pytest

from diffnas.budget import Amount, Budget, beside_teacher, describe, parse_budget
from diffnas.errors import UserError


def test_nothing_given_means_half_the_macs():
    assert parse_budget() == Budget(macs=Amount(0.5, relative=True))


@pytest.mark.parametrize("written", [0.5, "0.5", "0.50", "50%", ".5", " 50 % ", "5e-1"])
def test_however_a_share_is_written_it_is_the_same_budget_and_name(written):
    budget = parse_budget(macs=written)
    assert budget.macs == Amount(0.5, relative=True)
    assert budget.name == "macs-0.5"


@pytest.mark.parametrize(
    ("kind", "written", "value", "name"),
    [
        ("macs", "3.1G", 3.1e9, "macs-3.1G"),
        ("macs", "3100M", 3.1e9, "macs-3.1G"),
        ("macs", "500M", 5e8, "macs-500M"),
        ("params", "20M", 20e6, "params-20M"),
        ("params", "1.2b", 1.2e9, "params-1.2B"),
        ("latency", "12ms", 12.0, "latency-12ms"),
        ("latency", "0.012s", 12.0, "latency-12ms"),
        ("memory", "2GiB", 2.0**31, "memory-2GiB"),
        ("memory", "2048MiB", 2.0**31, "memory-2GiB"),
        ("memory", "2GB", 2e9, "memory-2GB"),
        ("macs", "1e9G", 1e18, "macs-1000000T"),
        ("macs", "1e30G", 1e39, "macs-1e+27T"),
        ("latency", "1e-9us", 1e-12, "latency-1e-09us"),
    ],
)
def test_amounts_carry_units(kind, written, value, name):
    budget = parse_budget(**{kind: written})
    assert budget.limits() == {kind: Amount(value, relative=False)}
    assert budget.name == name


def test_shares_are_free_of_rounding_noise():
    assert parse_budget(macs="33.3%").name == "macs-0.333"


def test_several_budgets_are_named_in_one_order():
    assert parse_budget(params=0.5, macs=0.5).name == "macs-0.5-params-0.5"


def test_tolerance_stands_alone():
    budget = parse_budget(tolerance="2.0")
    assert budget.tolerance == 2
    assert budget.limits() == {}
    assert budget.name == "tolerance-2"


def test_an_amount_is_a_share_of_the_teachers_or_itself():
    assert Amount(0.5, relative=True).of(17.3e6) == pytest.approx(8.65e6)
    assert Amount(3e6, relative=False).of(17.3e6) == 3e6


def test_amounts_are_described_for_people():
    assert describe(Amount(0.5, relative=True), "macs") == "0.5 of the teacher's"
    assert describe(Amount(3.1e9, relative=False), "macs") == "3.1G"


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("0.5", "0.75 of the teacher's 4.00 MiB"),
        ("2MiB", "3.00 MiB of the teacher's 4.00 MiB"),
        ("2MB", "3.15 MB of the teacher's 4.19 MB"),
        ("100KiB", "3072 KiB of the teacher's 4096 KiB"),
    ],
)
def test_a_cost_beside_the_teachers_is_told_as_the_limit_is_written(limit, told):
    amount = parse_budget(memory=limit).limits()["memory"]
    assert beside_teacher(amount, "memory", 3 * 2**20, 4 * 2**20) == told


def test_a_unit_that_is_far_too_small_is_left():
    amount = Amount(5e3, relative=False)
    assert beside_teacher(amount, "macs", 3e9, 4e9) == "3.00 G of the teacher's 4.00 G"


@pytest.mark.parametrize("kind", ["macs", "params", "latency", "memory"])
@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("half", "not a number"),
        ("", "not a number"),
        ("nan", "not a number"),
        ("inf", "not a number"),
        ("0,5", "not a number"),
        ("1.2.3", "not a number"),
        ("1e999", "not a number"),
        (True, "not a number"),
        ("0", "above 0"),
        ("-0.5", "above 0"),
        ("-3G", "above 0"),
        ("2", "at most 1"),
        ("150%", "at most 1"),
        ("3parsec", "'parsec' is no unit of"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_remedy(kind, written, reason):
    with pytest.raises(UserError) as error:
        parse_budget(**{kind: written})
    message = str(error.value)
    assert message.startswith(f"--{kind} {written}:")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "written", "units"),
    [
        ("macs", "12ms", "K, M, G, T"),
        ("params", "2GiB", "K, M, B"),
        ("latency", "3G", "us, ms, s"),
        ("memory", "12ms", "KB, MB, GB, KiB, MiB, GiB"),
    ],
)
def test_a_unit_of_something_else_is_named_with_the_right_ones(kind, written, units):
    with pytest.raises(UserError) as error:
        parse_budget(**{kind: written})
    assert f"no unit of {kind} ({units})" in str(error.value)


@pytest.mark.parametrize(("written", "example"), [(20e6, "'20M'"), (20, "'20M'"), ("2", "20M")])
def test_an_amount_without_unit_is_shown_one_as_it_has_to_be_written(written, example):
    with pytest.raises(UserError) as error:
        parse_budget(params=written)
    assert str(error.value).endswith(f"an amount needs its unit (K, M, B), such as {example}")


def test_tolerance_beside_a_budget_is_a_contradiction():
    with pytest.raises(UserError, match=r"--tolerance 2 contradicts --macs 0\.5.*one or the other"):
        parse_budget(macs=0.5, tolerance=2)


@pytest.mark.parametrize("written", ["0", "-1", "nan", "inf", "two", ""])
def test_tolerance_must_be_a_number_above_zero(written):
    with pytest.raises(UserError) as error:
        parse_budget(tolerance=written)
    assert str(error.value).startswith(f"--tolerance {written}: must be a number above 0")
