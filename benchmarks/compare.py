"""DiffNAS beside its rivals: same teacher, data, cost, retraining, sampler and seeds.

    python benchmarks/compare.py digits --data digits --macs 0.5 --steps 2500 --out runs/compare

Searched rows (DiffNAS's rules) share one run folder, its supernet and scores, a training seed. All
others start from what `rivals/` makes of the teacher and are retrained with the same steps, batch,
learning rate, averaging, images and noise. `--equal-compute` gives these further steps, as many as
fit in the seconds that DiffNAS's supernet and scores took. Every row is kept in OUT as it is found,
so the same command goes on. Writes benchmarks/results/NAME.json and prints the table.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from par import COLUMNS, EVALUATE, QUICK, spread, value
from points import point, row
from rivals import cached, pruned, stock
from timing import RESULTS
from torch import nn
from trained import ALONE, Bench, bench, trained_row

from diffnas import settings as all_settings
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.families import Teacher
from diffnas.measure.evaluate import quality_row
from diffnas.progress import Progress

SEARCHED = {
    "diffnas": [],
    "global-exact": ["select.rule=global-exact"],
    "random": ["select.rule=random"],
    "diffnas, fresh weights": ["retrain.init=fresh"],
}
"""Settings of the rows that a run folder makes."""

TAUGHT: Mapping[str, Any] = {"schedule": "none"}
"""The teacher's prediction is a target, as it is for DiffNAS; its blocks are not.

BK-SDM has block losses besides, but blocks with fewer layers hand on fewer tensors; and what they
bring is measured in docs/results.md: nothing, where there is the prediction."""


@dataclass(frozen=True)
class Rival:
    """``start`` makes the model before retraining; ``changes`` of the retraining's settings."""

    start: Any
    changes: Mapping[str, Any] = field(default_factory=lambda: TAUGHT)


def itself(teacher: Teacher, data: Any, macs: float, seed: int) -> nn.Module:
    """The teacher."""
    return copy.deepcopy(teacher.denoiser)


RIVALS = {
    "control": Rival(itself, ALONE),
    "from scratch": Rival(stock.narrow, ALONE),
    "narrow": Rival(stock.narrow),
    "shallow": Rival(stock.shallow),
    "magnitude": Rival(pruned.magnitude),
    "taylor": Rival(pruned.taylor),
    "diff-pruning": Rival(pruned.diff_pruning),
}
CACHED = "deep-cache"


def searched(name: str, on: Bench, args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """A row that a run folder makes."""
    seed = on.settings.seed
    given = [*args.common, f"seed={seed}", f"retrain.steps={args.steps}", *SEARCHED[name]]
    found = point(
        f"{name.replace(', ', '-').replace(' ', '-')}-{args.macs}-steps-{args.steps}",
        given,
        teacher=args.teacher,
        data=args.data,
        budget=parse_budget(macs=args.macs),
        out=args.out / f"seed-{seed}",
        progress=progress,
    )
    extra = found["seconds"]["supernet"] + found["seconds"]["scores"]
    return {**row(found), "steps": args.steps, "search_minutes": extra / 60}


def rival(
    name: str, on: Bench, steps: int, args: argparse.Namespace, progress: Progress
) -> dict[str, Any]:
    """A row that starts from what `rivals/` makes."""
    each, seed = RIVALS[name], on.settings.seed
    given = [*args.common, f"seed={seed}", f"retrain.steps={steps}"]
    on = bench(args.teacher, args.data, all_settings.load(None, tuple(given)))
    found = trained_row(
        on,
        lambda: each.start(on.teacher, on.data, args.macs, seed),
        args.out / f"{name.replace(' ', '-')}-{args.macs}-steps-{steps}-seed-{seed}.json",
        made=f"{name} {args.macs}",
        changes=each.changes,
        progress=progress,
    )
    macs, params = on.costs(on.teacher.denoiser)
    return {
        "macs": round(found["macs"] / macs, 4),
        "params": round(found["params"] / params, 4),
        **{key: value(found[key]) for key in COLUMNS},
        "steps": steps,
        "retrain_minutes": round(found["seconds"]["retrain"] / 60, 2),
    }


def sleeping(on: Bench, args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """DeepCache's row; its MACs are an average over the sampling's steps."""
    file = args.out / f"deep-cache-{args.macs}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    settings = on.settings.evaluate
    model, average = cached.deep_cache(on.teacher, args.macs, settings.sampler_steps)
    found = quality_row(replace(on.teacher, denoiser=model), on.data, settings, progress)
    kept = {"macs": round(average, 4), "params": 1.0, "steps": 0, "every": model.every}
    kept |= {key: value(found[key]) for key in COLUMNS if key != "denoising_loss"}
    write_json(file, kept)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", nargs="?", default="digits")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=[*SEARCHED, *RIVALS, CACHED])
    parser.add_argument("--equal-compute", action="store_true", help="rivals get further steps")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--name", default="compare")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    args = parser.parse_args()
    unknown = set(args.rows) - {*SEARCHED, *RIVALS, CACHED}
    if unknown:
        parser.error(f"--rows {' '.join(unknown)}: known are {', '.join([*SEARCHED, *RIVALS])}")
    if args.quick:
        args.steps = 4
        args.common = [*QUICK, "evaluate.sampler_steps=4"]  # fewer leave no step to sleep in
    else:
        args.common = [*EVALUATE, *args.assignments]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in args.rows}
    with show_progress() as progress:
        for seed in args.seeds:
            settings = all_settings.load(None, (*args.common, f"seed={seed}"))
            on, steps = bench(args.teacher, args.data, settings), args.steps
            if args.equal_compute:
                ours = searched("diffnas", on, args, progress)
                share = ours["search_minutes"] / ours["retrain_minutes"]
                steps += round(share * args.steps)
            for name in args.rows:
                if name in SEARCHED:
                    found = searched(name, on, args, progress)
                elif name in RIVALS:
                    found = rival(name, on, steps, args, progress)
                else:
                    found = sleeping(on, args, progress)
                rows[name].append({"seed": seed, **found})
    report = {
        "teacher_name": args.teacher,
        "macs": args.macs,
        "settings": args.common,
        "rows": {name: {**summary(found), "seeds": found} for name, found in rows.items()},
    }
    for name, each in report["rows"].items():
        print(f"{name}: " + ", ".join(f"{key} {figure(found)}" for key, found in each.items()))
    write_json(args.results / f"{args.name}.json", report)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over training seeds, of quality with deviation."""
    return {
        "macs": mean(each["macs"] for each in found),
        "params": mean(each["params"] for each in found),
        "steps": mean(each["steps"] for each in found),
        **{key: spread([each[key] for each in found]) for key in COLUMNS if key in found[0]},
    }


def figure(found: Any) -> str:
    """For a line of the printed table."""
    return f"{value(found):.4f}" if isinstance(found, dict | float | int) else str(len(found))


if __name__ == "__main__":
    main()
