"""Is the student at par? Training seeds, a control row and the verdict.

    python benchmarks/par.py digits --data digits --macs 0.5 --params 0.5 --out runs/par-digits
    python benchmarks/par.py runs/patches/teacher --data runs/patches/images \
        --set data.split_by=folder --macs 0.5 --out runs/par-patches

For every training seed: one whole compression (supernet, selection, retraining) and a control,
the teacher trained on for exactly the student's steps with the same data loss, batch, learning
rate and EMA. All rows are judged with the same sampler, sampling seeds and images. Par: the mean
held-out Fréchet distance of the students is at most the better of teacher's and controls' mean
plus one standard error. Resumable: finished parts are kept in --out. Writes
benchmarks/results/par.json (`--name` another).
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from protocol import COLUMNS, arguments, assignments, spread, value
from trained import ALONE, bench, trained_row

from diffnas import settings as all_settings
from diffnas.budget import Budget, parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.progress import Progress
from diffnas.run import compress
from diffnas.settings import Settings


def main() -> None:
    """Run all parts that are missing, then print and write the table."""
    parser = arguments(__doc__, "par")
    parser.add_argument("--macs")
    parser.add_argument("--params")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", type=int, help="for so many of the seeds (default: all)")
    parser.add_argument("--controls-of", metavar="NAME", help="take them from another table")
    args = parser.parse_args()
    common = assignments(args)
    if args.quick:
        common.append("retrain.steps=2")
    budget = parse_budget(macs=args.macs, params=args.params)
    found: dict[str, Any] = {}
    if args.controls_of:
        known = known_controls(args.results / f"{args.controls_of}.json", args.seeds, common)
    with show_progress() as progress:
        for index, seed in enumerate(args.seeds):
            given = [*common, f"seed={seed}"]
            settings = all_settings.load(None, tuple(given))
            parts = found[str(seed)] = {}
            parts["student"] = student(
                args.teacher, args.data, budget, settings, out=args.out, progress=progress
            )
            if args.controls_of:
                parts["control"] = checked_control(known[seed], parts["student"])
            elif args.controls is None or index < args.controls:
                parts["control"] = control(
                    args.teacher, args.data, settings, out=args.out, progress=progress
                )
    table = summary(found)
    table |= {"teacher_name": args.teacher, "budget": budget.name, "settings": common}
    table["controls_of"] = args.controls_of
    print(json.dumps({key: table[key] for key in ("rows", "verdict", "minutes")}, indent=2))
    write_json(args.results / f"{args.name}.json", table)


def student(
    teacher: str, data: str, budget: Budget, settings: Settings, *, out: Path, progress: Progress
) -> dict[str, Any]:
    """One whole compression; what its metrics.json says, and its minutes."""
    folder = out / f"seed-{settings.seed}"
    run = compress(
        teacher, data=data, out=folder, budget=budget, settings=settings, progress=progress
    )
    metrics = run.students[run.name].metrics()
    return {**metrics, "minutes": sum(metrics["seconds"].values()) / 60}


def control(
    source: str, data_source: str, settings: Settings, *, out: Path, progress: Progress
) -> dict[str, Any]:
    """The quality of the teacher trained on for the student's steps."""
    on = bench(source, data_source, settings)
    return trained_row(
        on,
        lambda: copy.deepcopy(on.teacher.denoiser),
        out / f"control-{settings.seed}.json",
        made="teacher",
        changes=ALONE,
        progress=progress,
    )


def known_controls(file: Path, seeds: list[int], common: list[str]) -> dict[int, dict[str, Any]]:
    """The controls of another table: neither the budget nor how a student is made changes them."""
    table: dict[str, Any] = json.loads(file.read_text())
    if of_control(table["settings"]) != of_control(common):
        raise SystemExit(f"--controls-of {file.stem}: other settings, {table['settings']}")
    missing = [seed for seed in seeds if "control" not in table["runs"].get(str(seed), {})]
    if missing:
        raise SystemExit(f"--controls-of {file.stem}: no control of the seeds {missing}")
    return {seed: table["runs"][str(seed)] for seed in seeds}


def of_control(settings: list[str]) -> list[str]:
    """Those that a control depends on; how it is judged is told by the teacher's row."""
    others = ("evaluate.", "space.", "supernet.", "score.", "select.", "retrain.output_weight=")
    return [each for each in settings if not each.startswith(others)]


def checked_control(known: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """The control, if the teacher came out the same in both tables: data and protocol are one.

    But for the rounding of another machine, which sampling carries into the sixth digit.
    """
    for key in COLUMNS:
        sides = (value(row["teacher"][key]) for row in (known["student"], student))
        if not math.isclose(*sides, rel_tol=1e-4):
            raise SystemExit("--controls-of: the teacher was judged otherwise there")
    control: dict[str, Any] = known["control"]
    return control


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Rows with mean and spread over training seeds, and the verdict."""
    students = [parts["student"] for parts in found.values()]
    controls = [parts["control"] for parts in found.values() if "control" in parts]
    first = students[0]
    rows = {
        "teacher": {key: spread([value(first["teacher"][key])]) for key in COLUMNS},
        "student": {
            key: spread([value(row["student"][key]) for row in students]) for key in COLUMNS
        },
    }
    if controls:
        rows["control"] = {key: spread([value(row[key]) for row in controls]) for key in COLUMNS}
    for cost in ("params", "macs"):
        rows["student"][cost] = spread([s["student"][cost] / s["teacher"][cost] for s in students])
    judged = {"teacher": [first["teacher"]], "control": controls}
    best = min(
        (found for found in judged.values() if found),
        key=lambda found: mean(value(row["frechet_distance"]) for row in found),
    )
    made = [row["student"] for row in students]
    ours, theirs = (mean(value(r["frechet_distance"]) for r in each) for each in (made, best))
    error = (rows["student"]["frechet_distance"]["std"] or 0.0) / math.sqrt(len(students))
    return {
        "rows": rows,
        "verdict": {
            "student": ours,
            "better of teacher and control": theirs,
            "standard error": error,
            "par": len(students) > 1 and ours <= theirs + error,
            "difference": ours - theirs,
            "its standard error from sampling": of_sampling(made, best),
        },
        "minutes": spread([row["minutes"] for row in students]),
        "protocol": first["protocol"],
        "runs": found,
    }


def of_sampling(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float | None:
    """Standard error of the difference of mean distances that comes from the sampling seeds.

    All rows start from the same noise, so they are compared seed by seed.
    """
    sides = ([row["frechet_distance"].get("each") for row in rows] for rows in (ours, theirs))
    means = [[mean(seed) for seed in zip(*each, strict=True)] for each in sides if all(each)]
    if len(means) < 2 or len(means[0]) < 2:
        return None
    differences = [a - b for a, b in zip(*means, strict=True)]
    return stdev(differences) / math.sqrt(len(differences))


if __name__ == "__main__":
    main()
