"""One student of a run folder, judged: a point of a curve or a row of a comparison.

The folder's supernet and scores serve all points with the same seed, because a change of the
`retrain` settings makes the student alone again. Points are kept in OUT/points as they are found.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol import COLUMNS, value

from diffnas import settings as all_settings
from diffnas.budget import Budget
from diffnas.checkpoint import write_json
from diffnas.fingerprint import fingerprint
from diffnas.progress import Progress
from diffnas.run import compress


def point(
    name: str,
    given: list[str],
    *,
    teacher: str,
    data: str,
    origin: str,
    budget: Budget,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Metrics of the student made with the settings ``given``, and the retraining's seconds.

    ``origin``: fingerprint of teacher and data. A stored point of others is made again.
    """
    file = out / "points" / f"{name}.json"
    settings = all_settings.load(None, tuple(given))
    # With the defaults, which may change.
    made_from = fingerprint(origin, settings.model_dump(mode="json"), budget.name)
    if file.exists():
        stored: dict[str, Any] = json.loads(file.read_text())
        if stored.get("made_from") == made_from:
            return stored
    run = compress(
        teacher,
        data=data,
        out=out,
        budget=budget,
        settings=settings,
        until="metrics",
        progress=progress,
    )
    student = run.students[run.name]
    retraining = json.loads((student.path / "student.json").read_text())["seconds"]
    found = {"made_from": made_from, "retrain_seconds": retraining, **student.metrics()}
    write_json(file, found)
    return found


def row(found: dict[str, Any]) -> dict[str, Any]:
    """What a table shows of a point."""
    teacher, student = found["teacher"], found["student"]
    return {
        "macs": round(student["macs"] / teacher["macs"], 4),
        "params": round(student["params"] / teacher["params"], 4),
        **{key: value(student[key]) for key in COLUMNS},
        "frechet_deviation": deviation(student),
        "retrain_minutes": round(found["retrain_seconds"] / 60, 2),
    }


def deviation(side: dict[str, Any]) -> float | None:
    """Of the held-out Fréchet distance over sampling seeds."""
    found: float | None = side["frechet_distance"].get("std")
    return found
