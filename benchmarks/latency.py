"""How much of the MACs a student saves is saved in time.

    python benchmarks/latency.py
    python benchmarks/latency.py --rule local --device cuda --precision bf16 --batches 1 16 64

Teacher: the UNet of google/ddpm-cifar10-32 (35.7 M parameters, 32 x 32) with random weights, which
take as long as trained ones. Students: half its MACs. By default they come from the rule 'random'
at macs 0.5, three draws, which looks at costs only; `--rule local` instead scores the untrained
supernet on a few images of noise (minutes on a CPU) and lets the local rule choose. Neither knows
what a trained teacher can spare. Beside them, every ResNet layer at half its inner width.

Teacher and students take turns; each round gives one ratio, the table their median and quartiles.
Mark: speed-up >= 0.85 / (share of MACs), as the mean over the rule's students.

The second table has one option wherever it can be had and the teacher's own elsewhere: share of
time saved over share of MACs saved says which options pay on this machine. Writes
benchmarks/results/latency.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from timing import RESULTS, machine, quartiles, span
from torch import nn
from untrained import as_teacher, cifar_unet, noise, small_unet

from diffnas.architecture import Architecture, BlockScores, Scores, SlotSpace, Space
from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.families import Teacher
from diffnas.families.unet2d import FAMILY
from diffnas.measure.latency import latency_ms
from diffnas.scoring import score
from diffnas.select import select
from diffnas.settings import ScoreSettings, SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import apply_edits
from diffnas.supernet import Supernet

MARK = 0.85
DRAWS = 3
HEAD_SIZE = 64  # of the second table's teacher; the published one has a single head, at equal cost
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

OPTIONS = {  # kind of slot, start of the option's name, which of those, from the dearest
    "inner width 3/4": ("resnet", "width=", 0),
    "inner width 1/2": ("resnet", "width=", 1),
    "inner width 1/4": ("resnet", "width=", 2),
    "1x1 kernels": ("resnet", "kernel=1", 0),
    "ResNet layer left out": ("resnet", "skip", 0),
    "half the heads": ("attention", "heads=", 0),
    "attention left out": ("attention", "skip", 0),
    "upsamplers folded": ("upsampler", "folded", 0),
    "the same, of rank 1/2": ("upsampler", "rank=", 0),
    "the same, of rank 1/4": ("upsampler", "rank=", 1),
    "1x1 upsamplers": ("upsampler", "kernel=1", 0),
    "downsamplers of rank 1/2": ("conv", "rank=", 0),
    "downsamplers of rank 1/4": ("conv", "rank=", 1),
}


def without_losses(space: Space) -> Scores:
    """A score table for a rule that looks at costs only."""
    tables = {}
    for block in space.blocks:
        choices = block.choices()
        tables[block.name] = BlockScores(choices, np.ones(len(choices)))
    return Scores(space, tables)


def students(teacher: Teacher, space: Space, rule: str, images: int) -> dict[str, Architecture]:
    """Architectures of half the MACs, by name."""
    if rule == "random":
        return {f"random {seed}": random_half(space, seed) for seed in range(DRAWS)}
    settings = ScoreSettings(images=images, batch_size=images)
    table = score(Supernet(teacher, space), noise(teacher), settings)
    return {rule: select(table, parse_budget(macs=0.5), rule).architecture}


def random_half(space: Space, seed: int = 0) -> Architecture:
    """What the rule 'random' draws at half the MACs."""
    return select(without_losses(space), parse_budget(macs=0.5), "random", seed=seed).architecture


def with_option(space: Space, kind: str, prefix: str, number: int) -> Architecture:
    """That option in every slot of the kind that has it; the teacher's own elsewhere."""

    def chosen(slot: SlotSpace) -> str:
        names = [option.name for option in slot.options if option.name.startswith(prefix)]
        return names[number] if slot.kind == kind and number < len(names) else slot.options[0].name

    return Architecture(
        {block.name: {slot.path: chosen(slot) for slot in block.slots} for block in space.blocks}
    )


def build(teacher: Teacher, architecture: Architecture, space: Space) -> nn.Module:
    """The plain denoiser of an architecture; new layers with random weights."""
    model = copy.deepcopy(teacher.denoiser)
    apply_edits(model, architecture.edits(space))
    return model.eval().requires_grad_(False)


def shares(space: Space, architecture: Architecture) -> dict[str, float]:
    """MACs and parameters as shares of the teacher's."""
    cost, whole = space.cost_of(architecture), space.teacher
    return {"macs": cost.macs / whole.macs, "params": cost.params / whole.params}


def measure(
    models: Mapping[str, nn.Module], batch: int, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Milliseconds of every model in every round."""
    device, dtype = torch.device(args.device), DTYPES[args.precision]
    inputs = FAMILY.example_inputs(next(iter(models.values())), batch, device)
    inputs["sample"] = inputs["sample"].to(dtype)
    for model in models.values():
        nn.Module.to(model, dtype)  # past diffusers' own, which warns of every call
    calls = {name: partial(model, **inputs) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(args.rounds):
        repeats = 2 if device.type == "cpu" else 20
        found = latency_ms(calls, device=device, repeats=repeats, warmup=2 if turn == 0 else 0)
        for name, ms in found.items():
            times[name].append(ms)
    return times


def first_table(args: argparse.Namespace) -> dict[str, Any]:
    """Students of half the MACs: how much faster than the teacher."""
    teacher = as_teacher(args.unet(), args.device)
    space = make_space(teacher.denoiser, FAMILY, SpaceSettings())
    began = time.monotonic()
    chosen = students(teacher, space, args.rule, args.images)
    selecting = time.monotonic() - began
    rule = list(chosen)
    chosen["half inner widths"] = with_option(space, *OPTIONS["inner width 1/2"])
    models = {"teacher": teacher.denoiser}
    models |= {name: build(teacher, some, space) for name, some in chosen.items()}
    rows: dict[str, Any] = {name: shares(space, some) for name, some in chosen.items()}
    batches: dict[str, Any] = {}
    for batch in args.batches:
        times = measure(models, batch, args)
        for name, row in rows.items():
            ratios = [a / b for a, b in zip(times["teacher"], times[name], strict=True)]
            kept = [ratio * row["macs"] for ratio in ratios]
            row[f"batch {batch}"] = {
                "ms": quartiles(times[name]),
                "speedup": quartiles(ratios),
                "of the ideal": quartiles(kept),
            }
        of_ideal = mean(rows[name][f"batch {batch}"]["of the ideal"]["median"] for name in rule)
        batches[f"batch {batch}"] = {
            "teacher_ms": quartiles(times["teacher"]),
            "of the ideal": round(of_ideal, 4),
            "met": of_ideal >= MARK,
        }
    return {
        "teacher": {"params": space.teacher.params, "macs": space.teacher.macs},
        "select_seconds": round(selecting, 1),
        "verdict": {"mark": MARK, "over": rule, **batches},
        "students": rows,
    }


def second_table(args: argparse.Namespace) -> dict[str, Any]:
    """One option at a time: share of time saved over share of MACs saved."""
    teacher = as_teacher(args.unet(HEAD_SIZE), args.device)
    # All slots and options, however little they save and however many subnets they make.
    wide = SpaceSettings(conv_min_share=0.0, max_subnets=2**62)
    space = make_space(teacher.denoiser, FAMILY, wide)
    rows: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        architecture = with_option(space, *option)
        saved = {key: 1 - share for key, share in shares(space, architecture).items()}
        models = {"teacher": teacher.denoiser, "student": build(teacher, architecture, space)}
        rows[name] = {"macs_saved": round(saved["macs"], 4), "params_saved": saved["params"]}
        for batch in args.batches:
            times = measure(models, batch, args)
            ratios = [b / a for a, b in zip(times["teacher"], times["student"], strict=True)]
            rows[name][f"batch {batch}"] = {
                "time_saved": quartiles([1 - ratio for ratio in ratios]),
                "per MACs saved": quartiles([(1 - ratio) / saved["macs"] for ratio in ratios]),
            }
    return rows


def show(report: dict[str, Any], batches: list[int]) -> None:
    """Both tables, for people."""
    keys = [f"batch {batch}" for batch in batches]
    head = "".join(f"{key:>24}" for key in keys)
    print(f"{'student':<26}{'MACs':>8}{head}   speed-up (of the ideal)")
    for name, row in report["students"].items():
        cells = [
            (row[key]["speedup"]["median"], row[key]["of the ideal"]["median"]) for key in keys
        ]
        figures = "".join(f"{f'{speedup:.2f} ({kept:.2f})':>24}" for speedup, kept in cells)
        print(f"{name:<26}{row['macs']:>8.3f}{figures}")
    print(f"\n{'option, wherever it can be':<26}{'saves':>8}{head}   time saved per MACs saved")
    for name, row in report["options"].items():
        figures = "".join(f"{span(row[key]['per MACs saved']):>24}" for key in keys)
        print(f"{name:<26}{row['macs_saved']:>8.3f}{figures}")
    print(f"\n{json.dumps(report['verdict'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rule", choices=["random", "local"], default="random")
    parser.add_argument("--images", type=int, default=2, help="that --rule local scores")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small UNet, two rounds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.unet = small_unet if args.quick else cifar_unet
    args.rounds = 2 if args.quick else args.rounds
    about = {**machine(args.device), "precision": args.precision, "rounds": args.rounds}
    report: dict[str, Any] = {"about": about, **first_table(args), "options": second_table(args)}
    show(report, args.batches)
    write_json(args.results / "latency.json", report)


if __name__ == "__main__":
    main()
