"""Successive halving: does it pay to choose an architecture by retraining several a little.

    python benchmarks/halving.py digits --data digits --macs 0.25 --steps 2500 --out runs/halving

Candidates are what the rule chooses, and what it chooses where each error is off by a factor
exp(SPREAD z), z ~ N(0, 1): as many near-best architectures as are wanted. Successive halving
(Jamieson & Talwalkar 2016) retrains all for a few steps, the best quarter from the beginning for
four times as many; the lowest denoising loss over seen images, at fixed noise, wins. Then three
rows, retrained at length with the same seeds: the rule's own choice, the same with the steps that
halving took, and the winner. One supernet and its errors, in OUT/run, serve all. Resumable: every
row is kept in OUT. Writes benchmarks/results/halving.json (`--name` another).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from candidates import after_steps, search, validation
from protocol import COLUMNS, arguments, assignments, spread, value
from trained import bench, trained_row

from diffnas import settings as all_settings
from diffnas import stages
from diffnas.architecture import Architecture, BlockScores, Scores
from diffnas.budget import Budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.fingerprint import fingerprint
from diffnas.select import select

SPREAD = 0.5
QUARTER = 4


def candidates(errors: Scores, budget: Budget, rule: str, count: int) -> list[Architecture]:
    """The rule's choice, and those it makes from errors that are off; no two are the same."""
    found = [select(errors, budget, rule).architecture]
    for seed in range(4 * count):
        if len(found) == count:
            break
        other = select(off(errors, seed), budget, rule).architecture
        if other not in found:
            found.append(other)
    return found


def off(errors: Scores, seed: int) -> Scores:
    """The same errors, each by a factor of its own, but for the teacher's options (row 0)."""
    draw = np.random.default_rng(seed)
    blocks = {}
    for name, block in errors.blocks.items():
        factors = np.exp(SPREAD * draw.standard_normal(len(block.losses)))
        factors[0] = 1
        blocks[name] = BlockScores(block.choices, block.losses * factors)
    return replace(errors, blocks=blocks)


def halved(
    found: list[Architecture], measure: Callable[[Architecture, int], float], steps: int
) -> tuple[int, list[dict[str, Any]]]:
    """The winner among architectures, and of every round its steps and losses.

    ``measure``: the loss after so many steps; ``steps``: of the first round.
    """
    left, rounds = list(range(len(found))), []
    while len(left) > 1:
        losses = {index: measure(found[index], steps) for index in left}
        rounds.append({"steps": steps, "losses": losses})
        left = sorted(left, key=losses.__getitem__)[: max(1, len(left) // QUARTER)]
        steps *= QUARTER
    return left[0], rounds


def main() -> None:
    parser = arguments(__doc__, "halving")
    parser.add_argument("--macs", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--short", type=int, default=25, help="steps in the first round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of retraining")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.count, args.short = 4, 4, 1
    common = assignments(args)
    on = bench(args.teacher, args.data, all_settings.load(None, tuple(common)))

    def retrained(index: int, steps: int, seed: int) -> dict[str, float]:
        given = (*common, f"retrain.steps={steps}", f"seed={seed}")
        row = trained_row(
            on.under(all_settings.load(None, given)),
            partial(net.build, found[index]),
            args.out / f"{index}-steps-{steps}-seed-{seed}.json",
            made=fingerprint(supernet_from, found[index].blocks),
            changes={"schedule": "none"},
            progress=progress,
        )
        return {key: value(row[key]) for key in COLUMNS}

    with show_progress() as progress:
        job = search(on, args.macs, args.out / "run", progress)
        net, supernet_from = stages.supernet(job)
        scores, scores_from = stages.scores(job, net, supernet_from)
        errors, _ = stages.output_errors(job, net, scores, scores_from)
        found, part = candidates(errors, job.budget, job.rule, args.count), validation(on)
        winner, rounds = halved(
            found, lambda chosen, steps: after_steps(on, net.build(chosen), part, steps), args.short
        )
        spent = sum(each["steps"] * len(each["losses"]) for each in rounds)
        rows = {}
        for name, index, steps in (
            ("the rule's own", 0, args.steps),
            ("the rule's own, with halving's steps", 0, args.steps + spent),
            ("the winner", winner, args.steps),
        ):
            cost, whole = job.space.cost_of(found[index]), job.space.teacher
            kept = [retrained(index, steps, seed) for seed in args.seeds]
            rows[name] = {
                "macs": round(cost.macs / whole.macs, 4),
                "params": round(cost.params / whole.params, 4),
                "steps": steps,
                **{key: spread([row[key] for row in kept]) for key in COLUMNS},
                "seeds": kept,
            }
    for name, row in rows.items():
        told = ", ".join(f"{key} {value(row[key]):.4f}" for key in COLUMNS)
        print(f"{name}: {row['macs']}, {row['params']}, {row['steps']} steps: {told}")
    report = {"teacher_name": args.teacher, "macs": args.macs, "settings": common}
    report |= {"candidates": len(found), "winner": winner, "rounds": rounds, "rows": rows}
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
