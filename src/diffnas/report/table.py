"""The closing table, teacher | student | ratio: one source for the terminal and the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from diffnas.figures import figure

LABELS = {
    "params": "parameters",
    "macs": "MACs",
    "macs_without_attention": "MACs without attention products",
    "latency_ms": "latency",
    "memory_bytes": "memory",
    "frechet_distance": "Fréchet distance, held-out images",
    "kernel_distance": "kernel distance, held-out images",
    "frechet_distance_seen": "Fréchet distance, seen images",
    "kernel_distance_seen": "kernel distance, seen images",
    "denoising_loss": "denoising loss, held-out images",
    "nearest_seen": "distance to the nearest seen image",
}
"""What is measured, in the order of the rows. Less is better in each but the last: images
nearer to seen ones than the teacher's are, are closer to copies."""

COSTS = ("params", "macs", "macs_without_attention", "latency_ms", "memory_bytes")
"""The measures that say what a denoiser costs, not how good its images are."""

Measure = float | Mapping[str, float] | None
"""A number, or ``{"mean", "std"}`` over seeds, or nothing: not measured."""


@dataclass(frozen=True)
class Row:
    """One line of the closing table: the measure's key, the rest as text."""

    key: str
    label: str
    teacher: str
    student: str
    ratio: str


def closing_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """One row for each thing measured on either side of ``metrics.json``."""
    teacher, student = metrics.get("teacher", {}), metrics.get("student", {})
    return [
        Row(
            key,
            label,
            measure_text(key, teacher.get(key)),
            measure_text(key, student.get(key)),
            ratio_text(student.get(key), teacher.get(key)),
        )
        for key, label in labels_in(teacher, student).items()
    ]


def closing_table(metrics: Mapping[str, Any], title: str | None = None) -> Table:
    """The rows as a table for the terminal."""
    table = plain_table(title, ("", "teacher", "student", "ratio"))
    for row in closing_rows(metrics):
        table.add_row(row.label, row.teacher, row.student, row.ratio)
    return table


def side_by_side(sides: Mapping[str, Mapping[str, Any]]) -> Table:
    """Any number of pipelines, a column each."""
    table = plain_table(None, ("", *sides))
    for key, label in labels_in(*sides.values()).items():
        table.add_row(label, *(measure_text(key, side.get(key)) for side in sides.values()))
    return table


def plain_table(title: str | None, columns: tuple[str, ...]) -> Table:
    """An empty table in the house style: names to the left, numbers to the right.

    Titles and columns may come from the user and are never read as markup.
    """
    table = Table(title=None if title is None else Text(title), box=None, pad_edge=False)
    table.title_justify = "left"
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if index == 0 else "right")
    return table


def labels_in(*sides: Mapping[str, Any]) -> dict[str, str]:
    """Keys and labels of what at least one side has, known ones first."""
    present = [key for side in sides for key, value in side.items() if mean(value) is not None]
    known = {key: label for key, label in LABELS.items() if key in present}
    return known | {key: key.replace("_", " ") for key in present if key not in known}


def mean(measure: Any) -> float | None:
    """The number itself or the mean over seeds; None for anything else."""
    value: Any = measure.get("mean") if isinstance(measure, Mapping) else measure
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def ratio_text(student: Measure, teacher: Measure) -> str:
    """Student over teacher: ``0.50``; of what may be negative, as unbiased estimates, nothing."""
    above, below = mean(student), mean(teacher)
    if above is None or below is None or above < 0 or below <= 0:
        return ""
    return f"{above / below:.2f}"


def measure_text(key: str, measure: Measure) -> str:
    """With its unit and, over seeds, its standard deviation: ``0.83 ± 0.02``, ``17.3 M``."""
    value = mean(measure)
    if value is None:
        return "not measured"
    std = measure.get("std") if isinstance(measure, Mapping) else None
    return figure(key, value, std)
