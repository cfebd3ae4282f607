"""The closing table: numbers as people read them."""

import io

import pytest
from rich.console import Console

from diffnas.report.table import (
    LABELS,
    closing_rows,
    closing_table,
    measure_text,
    ratio_text,
    side_by_side,
)


def printed(table) -> list[str]:
    """The lines of a table, runs of spaces made one."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("key", "measure", "text"),
    [
        ("params", 17_349_120, "17.3 M"),
        ("params", 640, "640"),
        ("macs", 3.1e9, "3.10 G"),
        ("macs_without_attention", 1.25e12, "1.25 T"),
        ("memory_bytes", 9.5 * 2**20, "9.50 MiB"),
        ("memory_bytes", {"mean": 9.5 * 2**20, "std": 2**18}, "9.50 ± 0.25 MiB"),
        ("memory_bytes", {"mean": 2**31, "std": 2**28}, "2.00 ± 0.25 GiB"),
        ("latency_ms", 4.2134, "4.21 ms"),
        ("latency_ms", {"mean": 123.4, "std": 2.6}, "123 ± 3 ms"),
        ("frechet_distance", {"mean": 0.8312, "std": 0.0213}, "0.831 ± 0.021"),
        ("frechet_distance", {"mean": 0.8312, "std": None}, "0.831"),
        ("kernel_distance", 0.0, "0"),
        ("kernel_distance", -0.00012345, "-0.000123"),
        ("kernel_distance", 0.0000123, "1.23e-05"),
        ("frechet_distance", 1234567.0, "1.23e+06"),
        ("latency_ms", None, "not measured"),
        ("latency_ms", {}, "not measured"),
        ("latency_ms", "fast", "not measured"),
    ],
)
def test_a_measure_has_its_unit_and_three_digits(key, measure, text):
    assert measure_text(key, measure) == text


@pytest.mark.parametrize(
    ("student", "teacher", "text"),
    [
        (1, 2, "0.50"),
        ({"mean": 3.0, "std": 1.0}, 2, "1.50"),
        (None, 2, ""),
        (1, None, ""),
        (1, 0, ""),
        (0.5, -0.1, ""),  # unbiased estimates may be below zero
        (-0.1, 0.5, ""),
    ],
)
def test_a_ratio_is_student_over_teacher_where_both_are_known(student, teacher, text):
    assert ratio_text(student, teacher) == text


def test_rows_are_what_either_side_measured_in_one_order():
    metrics = {
        "teacher": {"latency_ms": 4.0, "params": 200, "sharpness": 3.0, "memory_bytes": None},
        "student": {"params": 100, "frechet_distance": 2.0},
    }
    rows = [(row.label, row.teacher, row.student, row.ratio) for row in closing_rows(metrics)]
    assert rows == [
        ("parameters", "200", "100", "0.50"),
        ("latency", "4.00 ms", "not measured", ""),
        ("Fréchet distance, held-out images", "not measured", "2.00", ""),
        ("sharpness", "3.00", "not measured", ""),
    ]


def test_the_closing_table_has_a_title_and_a_ratio():
    metrics = {"teacher": {"params": 200}, "student": {"params": 100}}
    assert printed(closing_table(metrics, title="macs-0.5")) == [
        "macs-0.5",
        "teacher student ratio",
        "parameters 200 100 0.50",
    ]


def test_names_are_never_read_as_markup():
    lines = printed(side_by_side({"[red]run[/red]": {"params": 1}}))
    assert lines[0] == "[red]run[/red]"


def test_every_measure_of_the_protocol_has_a_label():
    assert {"denoising_loss", "nearest_seen", "kernel_distance_seen"} <= set(LABELS)
