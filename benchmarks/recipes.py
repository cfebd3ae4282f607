"""Which way of retraining is best? One architecture and start a seed, several recipes.

    python benchmarks/recipes.py digits --data digits --macs 0.5 --params 0.5 --out runs/recipes \
        --steps 3000 --seeds 0 1 2 \
        --recipe retrain.schedule=none --recipe retrain.ramp=0.3 \
        --recipe retrain.ramp=0.3,retrain.output_weight=4

A recipe is settings joined by commas. Noise and images of every step are the same, so recipes are
compared seed by seed. Writes benchmarks/results/NAME.json. Resumable.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from points import point, row
from protocol import COLUMNS, arguments, assignments, spread, value
from trained import bench

from diffnas import settings as all_settings
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.fingerprint import fingerprint

SHARED = ("retrain.", "score.", "select.")
"""Settings that leave the supernet as it is."""


def main() -> None:
    parser = parser_of(__doc__, "recipes")
    parser.add_argument("--recipe", dest="recipes", action="append", required=True)
    args = parser.parse_args()
    compare({recipe: recipe.split(",") for recipe in args.recipes}, args)


def parser_of(description: str, name: str) -> argparse.ArgumentParser:
    """Without the recipes."""
    parser = arguments(description, name)
    parser.add_argument("--macs", default="0.5")
    parser.add_argument("--params")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser


def compare(recipes: Mapping[str, Sequence[str]], args: argparse.Namespace) -> None:
    """Train by every recipe, by name, what is not there yet; write the table and print it.

    Every seed has a run folder of its own, whose supernet recipes share as far as they can.
    """
    if args.quick:
        args.steps = 4
    common = assignments(args)
    budget = parse_budget(macs=args.macs, params=args.params)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    origin = bench(args.teacher, args.data, all_settings.load(None, tuple(common))).origin
    with show_progress() as progress:
        for seed in args.seeds:
            for name, recipe in recipes.items():
                searched = [each for each in recipe if not each.startswith(SHARED)]
                found = point(
                    f"{name}-steps-{args.steps}",
                    [*common, f"seed={seed}", f"retrain.steps={args.steps}", *recipe],
                    teacher=args.teacher,
                    data=args.data,
                    origin=origin,
                    budget=budget,
                    out=args.out / f"seed-{seed}" / (fingerprint(searched) if searched else ""),
                    progress=progress,
                )
                rows[name].append({"seed": seed, **row(found)})
    report = {
        "teacher_name": args.teacher,
        "budget": budget.name,
        "steps": args.steps,
        "settings": common,
        "protocol": found["protocol"],
        "teacher": {key: value(found["teacher"][key]) for key in COLUMNS},
        "recipes": {
            recipe: {
                **{key: mean(each[key] for each in found) for key in ("macs", "params")},
                **{key: spread([each[key] for each in found]) for key in COLUMNS},
                "retrain_minutes": mean(each["retrain_minutes"] for each in found),
                "seeds": found,
            }
            for recipe, found in rows.items()
        },
    }
    for recipe, each in {"teacher": report["teacher"], **report["recipes"]}.items():
        figures = (f"{key} {value(each[key]):.4f}" for key in COLUMNS)
        print(f"{recipe}: {', '.join(figures)}")
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
