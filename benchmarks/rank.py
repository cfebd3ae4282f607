"""Which score foretells quality after retraining? Rank correlations over random architectures.

    python benchmarks/rank.py digits --data digits --macs 0.5 --steps 400 --out runs/rank

Architectures drawn at random, of one cost, are scored in every way known here and then retrained,
each with two seeds. Kendall's tau between a score and the quality, a mean over seeds, has a
bootstrap interval over architectures; the tau between the two seeds says how far chance decides.
One supernet and its score table, in OUT/run, serve all. Resumable: every retraining is kept in OUT.
`--part 1/2` does every second architecture and no table, so that two processes share the work, once
supernet and scores are there (`--count 0` makes them); the call without it reads all.
Writes benchmarks/results/rank.json (`--name` another).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from candidates import after_steps, search, validation
from protocol import arguments, assignments, value
from torch.nn import functional as F
from trained import Bench, bench, trained_row

from diffnas import settings as all_settings
from diffnas import stages
from diffnas.architecture import Architecture
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.families import Batch
from diffnas.fingerprint import fingerprint
from diffnas.patched_teacher import PatchedTeacher
from diffnas.select.table import Rows, Table, make_table
from diffnas.supernet import Supernet

DRAWS = 20_000
RESAMPLES = 2000
SHORT = (25, 100)
"""Steps of retrainings so short that many architectures could have them before one is chosen."""

QUALITY = ("denoising_loss", "frechet_distance")


def architectures(table: Table, macs: float, count: int, seed: int) -> list[Rows]:
    """Of many random ones, those whose MACs are nearest below the limit."""
    draw, names = np.random.default_rng(seed), list(table.losses)
    picks = np.stack([draw.integers(len(table.losses[n]), size=DRAWS) for n in names], axis=1)
    costs = table.costs["macs"]
    share = table.fixed["macs"] + np.sum([costs[n][picks[:, i]] for i, n in enumerate(names)], 0)
    nearest = np.flatnonzero(share <= macs)[np.argsort(-share[share <= macs])][:count]
    return [{n: int(row) for n, row in zip(names, picks[i], strict=True)} for i in nearest]


def from_table(table: Table, rows: Rows) -> dict[str, float]:
    """Scores that need the score table alone."""
    losses = np.array([table.scores.blocks[name].losses[row] for name, row in rows.items()])
    ratios = np.array([table.losses[name][row] for name, row in rows.items()])
    return {
        "sum of block losses": float(losses.sum()),
        "sum of losses over benchmarks": float(ratios.sum()),
        "sum of logarithms": float(np.log(losses).sum()),
        "largest loss over its benchmark": float(ratios.max()),
        "fewer parameters": table.total("params", rows),
    }


def at_the_output(net: Supernet, table: Table, rows: Rows, part: Batch) -> dict[str, float]:
    """Scores from the errors that selection goes by: one of the teacher's blocks replaced."""
    order = part.inputs["timestep"].argsort()
    halves = [part.rows(half) for half in order.chunk(2)]
    patched = PatchedTeacher(net)
    found = np.array(
        [
            [
                patched.errors(block, table.scores.blocks[block.name].choices[[row]], [half])
                for block in net.space.blocks
                for row in [rows[block.name]]
            ]
            for half in halves
        ]
    )
    return {
        "errors at the output, summed": float(found.mean(0).sum()),
        "the same, of their roots": float(np.sqrt(found.mean(0)).sum()),
        "the same, at little noise": float(found[0].sum()),
        "the same, at much noise": float(found[1].sum()),
    }


@torch.no_grad()
def from_passes(on: Bench, net: Supernet, chosen: Architecture, part: Batch) -> dict[str, float]:
    """Scores from calls of the denoiser with supernet weights, before any retraining."""
    family, space = on.teacher.family, net.space
    wanted = family.prediction(on.teacher.denoiser(**part.inputs), part.size)

    def away(architecture: Architecture) -> float:
        given = family.prediction(net.build(architecture)(**part.inputs), part.size)
        return float(F.mse_loss(given, wanted))

    alone = [
        away(Architecture({b.name: b.teacher for b in space.blocks} | {name: subnet}))
        for name, subnet in chosen.blocks.items()
    ]
    whole = net.build(chosen)
    task = F.mse_loss(family.prediction(whole(**part.inputs), part.size), part.target)
    return {
        "one block replaced in the supernet, at the output, summed": sum(alone),
        "whole student, at the output": away(chosen),
        "whole student, denoising loss": float(task),
    }


def correlation(scores: list[float], quality: list[float]) -> dict[str, float]:
    """Kendall's tau-b and the 95 % interval of a bootstrap over architectures."""
    order = np.array([np.sign(np.subtract.outer(each, each)) for each in (scores, quality)])
    picked = np.random.default_rng(0).integers(len(scores), size=(RESAMPLES, len(scores)))
    again = tau_b(order[:, picked[:, :, None], picked[:, None, :]])
    low, high = np.nanquantile(again, [0.025, 0.975])
    found = {"tau": tau_b(order), "low": low, "high": high}
    return {key: round(float(value), 3) for key, value in found.items()}


def tau_b(order: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Kendall's, from which of two comes first (2, ..., N, N): -1, 0, 1; NaN where all are equal.

    As scipy has it, but of thousands of resamples at once.
    """
    first, second = order
    with np.errstate(invalid="ignore"):
        tau: npt.NDArray[np.float64] = (first * second).sum((-2, -1)) / np.sqrt(
            (first**2).sum((-2, -1)) * (second**2).sum((-2, -1))
        )
    return tau


def main() -> None:
    parser = arguments(__doc__, "rank")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of retraining")
    parser.add_argument(
        "--part", help="I/N: every N-th architecture from the I-th on, and no table"
    )
    args = parser.parse_args()
    if args.quick:
        args.steps, args.count = 2, 3
    common = assignments(args)
    settings = all_settings.load(None, (*common, f"retrain.steps={args.steps}"))
    on = bench(args.teacher, args.data, settings)
    first, every = (int(number) for number in (args.part or "1/1").split("/"))
    if not 1 <= first <= every:
        parser.error(f"--part {args.part}: I of I/N counts from 1 to N")
    rows = []
    with show_progress() as progress:
        job = search(on, args.macs, args.out / "run", progress)
        net, supernet_from = stages.supernet(job)
        scores, _ = stages.scores(job, net, supernet_from)
        table = make_table(scores, {"macs": args.macs})
        part = validation(on)
        drawn = architectures(table, args.macs, args.count, seed=0)
        for index in range(first - 1, len(drawn), every):
            chosen = table.architecture(drawn[index])
            qualities = []
            for seed in args.seeds:
                with_seed = replace(on, settings=on.settings.model_copy(update={"seed": seed}))
                found = trained_row(
                    with_seed,
                    partial(net.build, chosen),
                    args.out / f"{index}-seed-{seed}.json",
                    made=fingerprint(supernet_from, chosen.blocks),
                    changes={"schedule": "none"},
                    progress=progress,
                )
                qualities.append({key: value(found[key]) for key in QUALITY})
            if args.part:
                continue
            given = at_the_output(net, table, drawn[index], part)
            given |= from_table(table, drawn[index]) | from_passes(on, net, chosen, part)
            for steps in SHORT:
                again = after_steps(on, net.build(chosen), part, min(steps, args.steps))
                given[f"denoising loss after {steps} steps"] = again
            rows.append({"scores": given, "qualities": qualities})
    if not rows:
        return
    report = {"teacher_name": args.teacher, "macs": args.macs, "steps": args.steps}
    report |= {"settings": common, "count": len(rows), "rows": rows, "tau": taus(rows)}
    for quality, each in report["tau"].items():
        for score, found in each.items():
            print(
                f"{quality}, {score}: {found['tau']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
            )
    write_json(args.results / f"{args.name}.json", report)


def taus(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """For each quality (mean over seeds), tau with each score, and between two seeds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for quality in QUALITY:
        by_seed = [[seed[quality] for seed in row["qualities"]] for row in rows]
        means = [float(np.mean(each)) for each in by_seed]
        found[quality] = {
            score: correlation([row["scores"][score] for row in rows], means)
            for score in rows[0]["scores"]
        }
        if len(by_seed[0]) > 1:
            ceiling = correlation([each[0] for each in by_seed], [each[1] for each in by_seed])
            found[quality]["between two retraining seeds"] = ceiling
    return found


if __name__ == "__main__":
    main()
