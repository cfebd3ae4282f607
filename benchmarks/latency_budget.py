"""Does a budget of latency hold? What is foretold of students beside what they measure.

    python benchmarks/latency_budget.py
    python benchmarks/latency_budget.py --teacher cifar10 --limits 0.7 --seeds 0 --device cuda

Teacher: the digits', or the UNet of `latency.py` with random weights. Students: what `--latency`
chooses by the rule 'random', which looks at costs only, with what is otherwise done for a user:
every option timed alone, scaled to the fastest whole, the choice measured and corrected. "again":
the same student beside its teacher once more, when all was chosen. Mark: foretold within a tenth of
what is measured again. Writes benchmarks/results/latency_budget.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import torch
from latency import without_losses
from timing import RESULTS, machine
from untrained import as_teacher, cifar_unet, small_unet

from diffnas.architecture import Architecture
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.families.loading import load_teacher
from diffnas.limits import option_metrics, within_latency
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.timing import paired_ms

MARK = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--limits", type=float, nargs="+", default=[0.8, 0.65, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="measurements once more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small UNet: to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.teacher == "digits" and not args.quick:
        teacher = load_teacher("digits", device=torch.device(args.device))
    else:
        teacher = as_teacher(small_unet() if args.quick else cifar_unet(), args.device)
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    scores = without_losses(space)
    rows: list[dict[str, Any]] = []
    chosen: list[Architecture] = []
    additive, whole = option_metrics(teacher, space, parse_budget(latency=0.5))
    for limit in args.limits:
        budget = parse_budget(latency=limit)
        for seed in args.seeds:
            found = within_latency(
                teacher, scores, budget, "random", seed=seed, additive=additive, whole=whole
            )
            chosen.append(found.architecture)
            rows.append(
                {
                    "limit": limit,
                    "seed": seed,
                    "macs": round(found.cost.macs / space.teacher.macs, 4),
                    "foretold": round(found.predicted["latency_share"], 4),
                    "measured": round(found.measured["latency_share"], 4),
                }
            )
    for row, architecture in zip(rows, chosen, strict=True):
        again = [paired_ms(teacher, architecture, space).share for _ in range(args.rounds)]
        row["again"] = round(median(again), 4)
        row["off"] = round(row["foretold"] / row["again"] - 1, 4)
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    within = sum(abs(row["off"]) <= MARK for row in rows)
    print(f"{within} of {len(rows)} foretold within {MARK:.0%}")
    report = {
        **machine(args.device),
        "teacher": args.teacher,
        "mark": MARK,
        "within": within,
        "rows": rows,
    }
    write_json(args.results / "latency_budget.json", report)


if __name__ == "__main__":
    main()
