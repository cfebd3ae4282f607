"""DiffNAS beside its rivals: same teacher, data, budget, retraining, sampler and seeds.

    python benchmarks/compare.py digits --data digits --macs 0.5 --steps 2500 --out runs/compare

Searched rows (DiffNAS's rules) share one run folder, its supernet and scores, a training seed. All
others start from what `rivals/` makes of the teacher and are retrained with the same steps, batch,
learning rate, averaging, images and noise. `--equal-compute` gives these as many steps as compute
what DiffNAS does altogether, in MACs (`compute.py`; pruning itself is left out). A rival whose form
cannot meet the budget closely shows its own cost, one that has none is left out. Rows are kept in
OUT as they are found, so the same command goes on. Writes benchmarks/results/NAME.json and prints
the table.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from compute import compression, step_macs
from points import point, row
from protocol import COLUMNS, arguments, assignments, spread, value
from rivals import OutOfReachError, Start, cached, folded, pruned, stock
from torch import nn
from trained import ALONE, Bench, bench, beside_teacher, trained_row

from diffnas import settings as all_settings
from diffnas.artifacts import current_json
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.data import Data
from diffnas.families import Teacher
from diffnas.fingerprint import fingerprint
from diffnas.measure.evaluate import quality_row
from diffnas.progress import Progress
from diffnas.settings import EvaluateSettings

SEARCHED = {
    "diffnas": [],
    "diffnas, no block losses": ["retrain.schedule=none"],
    "local": ["select.rule=local"],
    "global-evolution": ["select.rule=global-evolution"],
    "block losses": ["score.by=block", "select.rule=local"],
    "random": ["select.rule=random"],
    "diffnas, fresh weights": ["retrain.init=fresh"],
}
"""Settings of the rows that a run folder makes."""

TAUGHT: Mapping[str, Any] = {"schedule": "none"}
"""The teacher's prediction is a target, as it is for DiffNAS. Its blocks are not, as pruning is
published. DiffNAS has block losses in the first third of its steps; in its row without them it is
retrained as these rivals are. Those whose blocks give what the teacher's do, or known channels of
it, have a row with block losses too."""


@dataclass(frozen=True)
class Rival:
    """``start`` makes the model before retraining; ``changes`` of the retraining's settings."""

    start: Callable[[Teacher, Data, float, int], Start]
    changes: Mapping[str, Any]
    sized: bool = True  # whether it depends on the budget


def itself(teacher: Teacher, data: Data, macs: float, seed: int) -> Start:
    """The teacher."""
    return Start(copy.deepcopy(teacher.denoiser))


RIVALS = {
    "control": Rival(itself, ALONE, sized=False),
    "from scratch": Rival(stock.narrow, ALONE),
    "narrow": Rival(stock.narrow, TAUGHT),
    "shallow": Rival(stock.shallow, TAUGHT),
    "shallow, block losses": Rival(stock.shallow, {}),  # as BK-SDM has them
    "magnitude": Rival(pruned.magnitude, TAUGHT),
    "magnitude, block losses": Rival(pruned.magnitude, {}),
    "taylor": Rival(pruned.taylor, TAUGHT),
    "taylor, block losses": Rival(pruned.taylor, {}),
    "diff-pruning": Rival(pruned.diff_pruning, TAUGHT),
    "diff-pruning, block losses": Rival(pruned.diff_pruning, {}),
}

Row = dict[str, Any]


def fewer_steps(on: Bench, macs: float) -> list[tuple[nn.Module, float, EvaluateSettings]]:
    """The teacher, its upsamplers folded, with as many of the sampler's steps as that leaves."""
    settings, model = on.settings.evaluate, folded(copy.deepcopy(on.teacher.denoiser))
    of_a_step = on.costs(model)[0] / on.costs(on.teacher.denoiser)[0] / settings.sampler_steps
    steps = int(macs / of_a_step)
    if steps == 0:
        return []
    fewer = settings.model_copy(update={"sampler_steps": steps})
    return [(model, steps * of_a_step, fewer)]


def deep_cache(on: Bench, macs: float) -> list[tuple[nn.Module, float, EvaluateSettings]]:
    """All of its settings that could be best."""
    settings = on.settings.evaluate
    found = cached.deep_caches(on.teacher, macs, settings.sampler_steps)
    return [(model, average, settings) for model, average in found]


UNTRAINED = {"fewer steps": fewer_steps, "deep-cache": deep_cache}
"""Ways of sampling with the teacher whose MACs are an average over the sampling's steps."""


def searched(name: str, on: Bench, args: argparse.Namespace, progress: Progress) -> Row:
    """A row that a run folder makes."""
    seed = on.settings.seed
    found = point(
        f"{slug(name)}-{args.macs}-steps-{args.steps}",
        [*args.common, f"seed={seed}", f"retrain.steps={args.steps}", *SEARCHED[name]],
        teacher=args.teacher,
        data=args.data,
        origin=on.origin,
        budget=parse_budget(macs=args.macs),
        out=args.out / f"seed-{seed}",
        progress=progress,
    )
    return {"seed": seed, **row(found), "steps": args.steps}


def rival(name: str, on: Bench, args: argparse.Namespace, progress: Progress) -> Row:
    """A row that starts from what `rivals/` makes, at equal steps or at equal compute."""
    each, seed = RIVALS[name], on.settings.seed
    macs = args.macs if each.sized else 1.0
    start = cache(lambda: each.start(on.teacher, on.data, macs, seed))
    steps = equal_steps(each, start, on, args) if args.equal_compute else args.steps
    given = [*args.common, f"seed={seed}", f"retrain.steps={steps}"]
    on = on.under(all_settings.load(None, tuple(given)))
    source = Path(str(sys.modules[each.start.__module__].__file__)).read_text(encoding="utf-8")
    found = trained_row(
        on,
        lambda: start().model,
        args.out / f"{slug(name)}-{macs}-steps-{steps}-seed-{seed}.json",
        made=fingerprint(name, macs, source if each.sized else ""),
        changes=each.changes,
        progress=progress,
        trunk=lambda: start().trunk,
    )
    return {"seed": seed, **beside_teacher(on, found), "steps": steps}


def untrained(name: str, on: Bench, args: argparse.Namespace, progress: Progress) -> Row:
    """The best setting's row, kept like the others."""
    settings = on.settings.evaluate
    made_from = fingerprint(on.origin, settings.model_dump(exclude={"batch_size"}), args.macs)
    file = args.out / f"{slug(name)}-{args.macs}.json"
    stored = current_json(file, made_from, progress.say)
    if stored is not None:
        return stored
    found = []
    for model, average, how in UNTRAINED[name](on, args.macs):
        quality = quality_row(replace(on.teacher, denoiser=model), on.data, how, progress)
        kept = {key: value(quality[key]) for key in COLUMNS if key != "denoising_loss"}
        setting = {key: getattr(model, key) for key in ("every", "outer") if hasattr(model, key)}
        params = on.costs(model)[1] / on.costs(on.teacher.denoiser)[1]
        costs = {"macs": round(average, 4), "params": round(params, 4), "steps": 0}
        found.append({**costs, **kept, **setting})
    if not found:
        raise OutOfReachError(f"cannot reach {args.macs} of the MACs")
    best = min(found, key=lambda each: each["frechet_distance"])
    write_json(file, {**best, "settings": found, "fingerprint": made_from})
    return {**best, "settings": found}


def row_of(name: str, on: Bench, args: argparse.Namespace, progress: Progress) -> Row:
    """The row of that name for one training seed.

    Raises:
        OutOfReachError: there is none for this teacher or budget.
    """
    made = searched if name in SEARCHED else untrained if name in UNTRAINED else rival
    return made(name, on, args, progress)


def main() -> None:
    known = [*SEARCHED, *RIVALS, *UNTRAINED]
    parser = arguments(__doc__, None)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=known, default=known, metavar="ROW")
    parser.add_argument("--equal-compute", action="store_true", help="rivals get further steps")
    args = parser.parse_args()
    args.common = assignments(args)
    if args.quick:
        args.steps = 4
        args.common.append("evaluate.sampler_steps=4")  # fewer leave none to sleep in
    whole = bench(args.teacher, args.data, all_settings.load(None, tuple(args.common)))
    rows: dict[str, list[Row]] = {name: [] for name in args.rows}
    left_out: dict[str, str] = {}
    with show_progress() as progress:
        for seed in args.seeds:
            on = whole.under(all_settings.load(None, (*args.common, f"seed={seed}")))
            for name in args.rows:
                if name in UNTRAINED and rows[name]:
                    continue  # nothing about it depends on a training seed
                try:
                    rows[name].append(row_of(name, on, args, progress))
                except OutOfReachError as reason:
                    progress.say(f"{name}: {reason}")
                    left_out[name] = str(reason)
    report = {
        "teacher_name": args.teacher,
        "data": args.data,
        "macs": args.macs,
        "steps": args.steps,
        "equal_compute": args.equal_compute,
        "settings": args.common,
        "rows": {n: {**summary(each), "seeds": each} for n, each in rows.items() if each},
        "left_out": left_out,
    }
    for name, each in report["rows"].items():
        shown = {key: found for key, found in each.items() if key != "seeds"}
        print(f"{name}: " + ", ".join(f"{key} {value(found):.4f}" for key, found in shown.items()))
    name = "compare_equal_compute" if args.equal_compute else "compare"
    write_json(args.results / f"{args.name or name}.json", report)


def equal_steps(
    each: Rival, start: Callable[[], Start], on: Bench, args: argparse.Namespace
) -> int:
    """Steps of a rival's retraining that compute as much as all that DiffNAS does."""
    given = all_settings.load(None, (*args.common, f"retrain.steps={args.steps}"))
    budget = parse_budget(macs=args.macs)
    stages, _ = compression(on.teacher, given, budget, images=len(on.data.seen))
    model = start().model
    macs, _ = on.costs(model)
    whole, _ = on.costs(on.teacher.denoiser)
    how = on.settings.retrain.model_copy(update=dict(each.changes))
    return round(sum(stages.values()) / step_macs(model, macs, whole, how))


def summary(found: list[Row]) -> Row:
    """Means over training seeds, of quality with deviation."""
    return {
        "macs": mean(each["macs"] for each in found),
        "params": mean(each["params"] for each in found),
        "steps": mean(each["steps"] for each in found),
        **{key: spread([each[key] for each in found]) for key in COLUMNS if key in found[0]},
    }


def slug(name: str) -> str:
    """For a file's name."""
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
