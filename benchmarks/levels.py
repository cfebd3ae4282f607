"""A width for each level of a UNet beside one for all, at equal MACs.

    python benchmarks/levels.py digits --data digits --levels 4,4 6,2 --out runs/levels

Models are the teacher's with all streams, inner widths and heads of a level cut to the same share
of norm groups, which may differ between levels, without any search: what differs is where the width
is. All are retrained alike. Writes benchmarks/results/NAME.json and prints the table.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from protocol import COLUMNS, arguments, assignments, spread, value
from rivals import folded
from torch import nn
from trained import Bench, bench, beside_teacher, trained_row

from diffnas import settings as all_settings
from diffnas.checkpoint import write_json
from diffnas.cli.progress import show_progress
from diffnas.families import Ports, Teacher
from diffnas.fingerprint import fingerprint
from diffnas.progress import Progress
from diffnas.slots import attention, resnet
from diffnas.student.modeling import apply_edits, layers_on_streams
from diffnas.trunk import Kept, Trunk, cut_weights, named_calls, ranked_channels, widths

Levels = tuple[int, ...]
"""Norm groups that each level keeps, the highest resolution first."""


def level(stream: str) -> int:
    """Of a stream called 'down 1'."""
    return int(stream.split()[1])


def cut(teacher: Teacher, ranked: Kept, levels: Levels) -> nn.Module:
    """The teacher with those widths, weights cut to the most important groups."""
    assert teacher.family.streams is not None
    ports = teacher.family.streams(teacher.denoiser)
    kept = kept_at(ranked, levels)

    def left(of: int, stream: str) -> int:
        return max(1, round(of * levels[level(stream)] / len(ranked[stream])))

    model = cut_streams(teacher.denoiser, ports, kept)
    edits: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules():
        if path not in ports:
            continue
        stream = str(ports[path].writes)
        if isinstance(module, ResnetBlock2D):
            size = module.norm2.num_channels // module.norm2.num_groups
            groups = left(module.norm2.num_groups, stream)
            edits[path] = {"kind": "resnet", "width": groups * size, "groups": groups, "kernel": 3}
        elif isinstance(module, Attention):
            edits[path] = {"kind": "attention", "heads": left(module.heads, stream)}
    slots: Mapping[str, Any] = {"resnet": resnet, "attention": attention}
    own = {path: model.get_submodule(path) for path in edits}
    apply_edits(model, edits)
    for path, edit in edits.items():
        shared = slots[edit["kind"]].SharedWeights(own[path], [None, edit])
        model.get_submodule(path).load_state_dict(shared.weights(edit))
    return folded(model)


def kept_at(ranked: Kept, levels: Levels) -> Kept:
    """Stream -> its channels that are left, group by group."""
    kept = {name: rows[: levels[level(name)]].sort(0).values for name, rows in ranked.items()}
    return {name: rows.flatten() for name, rows in kept.items()}


def trunk_of(teacher: Teacher, ranked: Kept, levels: Levels) -> Trunk:
    """What cuts the teacher's blocks to the model's."""
    assert teacher.family.streams is not None
    ports = teacher.family.streams(teacher.denoiser)
    kept = {name: rows.to(teacher.device) for name, rows in kept_at(ranked, levels).items()}
    names = {path: each.writes for path, each in ports.items()}
    return Trunk(teacher.denoiser, kept, named_calls(teacher, names))


@torch.no_grad()
def cut_streams(denoiser: nn.Module, ports: Mapping[str, Ports], kept: Kept) -> nn.Module:
    """A copy with those channels of its streams; norms get groups of about the size they had."""
    new, old_widths = copy.deepcopy(denoiser), widths(denoiser, ports)
    for on in layers_on_streams(new):
        layer = on.layer
        weight, bias = cut_weights(on, ports, kept, old_widths)
        if isinstance(layer, nn.GroupNorm):
            size = layer.num_channels / layer.num_groups
            layer.num_channels = len(weight)
            most = max(1, round(len(weight) / size))
            layer.num_groups = max(n for n in range(1, most + 1) if len(weight) % n == 0)
        elif isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = weight.shape[:2]
        else:
            layer.out_features, layer.in_features = weight.shape
        layer.weight = nn.Parameter(weight.clone())
        layer.bias = None if bias is None else nn.Parameter(bias.clone())
    for each in new.modules():
        if isinstance(each, Downsample2D | Upsample2D):
            each.channels, each.out_channels = each.conv.in_channels, each.conv.out_channels
    return new.eval()


def row(
    each: Levels, on: Bench, ranked: Kept, args: argparse.Namespace, progress: Progress
) -> dict[str, Any]:
    """One model, retrained."""
    seed, name = on.settings.seed, "-".join(map(str, each))
    name += "-block-losses" if args.block_losses else ""
    found = trained_row(
        on,
        partial(cut, on.teacher, ranked, each),
        args.out / f"levels-{name}-steps-{args.steps}-seed-{seed}.json",
        made=fingerprint("levels", list(each)),
        changes={} if args.block_losses else {"schedule": "none"},
        progress=progress,
        trunk=partial(trunk_of, on.teacher, ranked, each),
    )
    return {"seed": seed, **beside_teacher(on, found)}


def main() -> None:
    parser = arguments(__doc__, "levels")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--block-losses", action="store_true", help="the teacher's blocks, too")
    parser.add_argument("--levels", nargs="+", required=True, help="norm groups, such as 4,4 6,2")
    args = parser.parse_args()
    common = [*assignments(args), f"retrain.steps={2 if args.quick else args.steps}"]
    on = bench(args.teacher, args.data, all_settings.load(None, tuple(common)))
    tried = [tuple(map(int, each.split(","))) for each in args.levels]
    rows: dict[str, list[dict[str, Any]]] = {}
    with show_progress() as progress:
        for seed in args.seeds:
            under = on.under(all_settings.load(None, (*common, f"seed={seed}")))
            how = {"batch_size": under.settings.supernet.batch_size or 64, "seed": seed}
            ranked = ranked_channels(on.teacher, on.data, **how, progress=progress)
            for each in tried:
                found = row(each, under, ranked, args, progress)
                rows.setdefault(",".join(map(str, each)), []).append(found)
    report = {
        "teacher_name": args.teacher,
        "data": args.data,
        "steps": args.steps,
        "block_losses": args.block_losses,
        "settings": common,
        "rows": {
            name: {**{key: spread([one[key] for one in each]) for key in COLUMNS}, "seeds": each}
            for name, each in rows.items()
        },
    }
    for name, each in report["rows"].items():
        shown = {key: value(each[key]) for key in COLUMNS}
        costs = f"{each['seeds'][0]['macs']:.3f} {each['seeds'][0]['params']:.3f}"
        print(f"{name}: {costs}, " + ", ".join(f"{key} {each:.4f}" for key, each in shown.items()))
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
