"""What sharing costs: a supernet step and a score table over the least they could take; and Muon.

    python benchmarks/speed.py
    python benchmarks/speed.py --teachers cifar --parts step scores --batch-size 8 --subnets 64 \
        --threads 1 --name speed_cifar

Teachers: the built-in digits, and two with random weights: a UNet of 16 x 16 colour images, and
the form of google/ddpm-cifar10-32, whose layers are as large as those of models that people use.

Supernet step: the teacher's captured forward, and forward, loss and backward of all blocks' subnets
through shared weights. Its floor: the teacher's plain forward, and the same subnets on the same
inputs as plain modules of their own, targets ready. Both run in one process, on the same threads,
in turns. The optimiser, which plain modules would need as well, is reported apart.

Score table: the floor is the walk over the tree of prefixes in which every node calls the plain
module of its option once, on an input of its shape; layers without options, and the interpolation
of an upsampler, are nodes with one, and options that give the same are one node. `with_losses` adds
a block loss per subnet, which every way of scoring has to compute; what else lies between layers
(concatenating skips) is in neither. The gain is over evaluating every subnet whole, timed on some
of them. One thread, as tables are made: batches run side by side.

Step of retraining: of a student of half the MACs, with Muon over one with AdamW, in turns.

Mark: 1.10 over the floors. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed_retrain import retrain_row
from speed_scores import score_row
from speed_step import step_row
from timing import RESULTS, machine, span
from train_patches import small_unet
from untrained import as_teacher, cifar_unet, noise

from diffnas.checkpoint import write_json
from diffnas.data import load_data
from diffnas.families import Teacher
from diffnas.families.loading import load_teacher
from diffnas.parallel import single_threaded, workers_for
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.supernet import Supernet

MARK = 1.10

TEACHERS: dict[str, Callable[[], Teacher]] = {
    "digits": lambda: load_teacher("digits"),
    "colour": lambda: as_teacher(small_unet()),
    "cifar": lambda: as_teacher(cifar_unet()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="each with subnets of its own")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each step and table")
    parser.add_argument("--sample", type=int, default=24, help="subnets of a block evaluated whole")
    parser.add_argument("--subnets", type=int, default=4096, help="of a block, at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--teachers", nargs="+", choices=list(TEACHERS))
    parser.add_argument("--parts", nargs="+", default=["step", "scores", "retrain"])
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default="speed", help="of the table there")
    parser.set_defaults(teachers=["digits", "colour"])
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.steps, args.repeats, args.sample, args.subnets = 8, 2, 2, 4, 64
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {
        "about": {**machine("cpu"), "batch_size": args.batch_size, "mark": MARK}
    }
    for name in args.teachers:
        teacher = TEACHERS[name]()
        data = noise(teacher) if name != "digits" else load_data("digits", size=(8, 8), channels=1)
        space = make_space(
            teacher.denoiser, teacher.family, SpaceSettings(max_subnets=args.subnets)
        )
        supernet = Supernet(teacher, space)
        report[name] = {"params": space.teacher.params, "macs": space.teacher.macs}
        size = args.batch_size
        if "step" in args.parts:
            workers = workers_for("cpu", space.teacher.macs * size)
            with single_threaded(workers > 1):
                found = step_row(
                    supernet,
                    data,
                    batch_size=size,
                    steps=args.steps,
                    repeats=args.repeats,
                    workers=workers,
                )
            report[name]["step"] = judged(f"{name}: supernet step", found)
        if "scores" in args.parts:
            with single_threaded(True):
                found = score_row(
                    supernet, data, batch_size=size, repeats=args.repeats, sample=args.sample
                )
            report[name]["scores"] = judged(f"{name}: score table", found)
        if "retrain" in args.parts:
            found = retrain_row(
                teacher, space, data, batch_size=size, steps=args.steps, repeats=args.repeats
            )
            report[name]["retrain"] = found
            print(f"{name}: a step with Muon is {span(found['muon_over_adamw'])} of AdamW's")
    write_json(args.results / f"{args.name}.json", report)


def judged(what: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its verdict; says it, too."""
    met = row["over_floor"]["median"] <= MARK
    print(f"{what}: {span(row['over_floor'])} of the floor, {'' if met else 'not '}within {MARK}")
    for key in ("over_floor_with_losses", "gain_over_whole"):
        if key in row:
            print(f"  {key.replace('_', ' ')} {span(row[key])}")
    for name, block in row.get("blocks", {}).items():
        print(f"  {name}, {block['subnets']} subnets: {span(block['over_floor'])}")
    return {"met": met, **row}


if __name__ == "__main__":
    main()
