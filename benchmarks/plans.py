"""What `diffnas plan` says of published models, from their configs alone, and what it costs.

    python benchmarks/plans.py

`configs/` holds the configs of published pipelines, written down from their classes' arguments, no
weights; of LDM-ImageNet, which no pipeline of diffusers runs, the denoiser's alone. Each is planned
in a process of its own: seconds from start to end, with the timing of one forward pass in them, and
the peak of its memory. Parameters and MACs stand beside an independent count, torch-pruning's,
which leaves out the products inside attention. The largest architecture of a space is the teacher,
or the sum of every slot's dearest option: with a narrower trunk less than the teacher, with options
wider than its own more. Writes benchmarks/results/plans.json, where rows of
models that were not asked for stay, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from timing import RESULTS

from diffnas.checkpoint import write_json
from diffnas.families.loading import load_skeleton

CONFIGS = Path(__file__).parent / "configs"
MARKS = {"seconds": 60.0, "gib": 4.0, "difference": 0.005}
"""What was asked for, at most."""


def planned(folder: Path) -> tuple[dict[str, Any], float, float]:
    """The plan for half the MACs, its seconds and GiB."""
    command = [sys.executable, "-m", "diffnas", "plan", str(folder), "--macs", "0.5", "--json"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"plan of {folder.name} failed")
    return json.loads(told), time.monotonic() - began, usage.ru_maxrss / 2**20


def counted(folder: Path) -> tuple[float, float]:
    """MACs without attention products, and parameters, as torch-pruning counts them."""
    teacher = load_skeleton(str(folder))
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, torch.device("meta"))
    macs, params = torch_pruning.utils.count_ops_and_params(teacher.denoiser, inputs)
    return float(macs), float(params)


def main() -> None:
    known = sorted(folder.name for folder in CONFIGS.iterdir())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=known, default=known, metavar="MODEL")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="the smallest model alone")
    args = parser.parse_args()
    file = args.results / "plans.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else {}
    for name in ["ddpm-cifar10-32"] if args.quick else args.models:
        plan, seconds, gib = planned(CONFIGS / name)
        macs, params = counted(CONFIGS / name)
        teacher, smallest, largest = plan["teacher"], plan["smallest"], plan["largest"]
        rows[name] = row = {
            "params": teacher["params"],
            "macs": teacher["macs"],
            "macs_without_attention": teacher["macs_without_attention"],
            "params_difference": teacher["params"] - params,
            "macs_difference": teacher["macs_without_attention"] / macs - 1,
            "smallest_macs": smallest["macs"] / teacher["macs"],
            "smallest_params": smallest["params"] / teacher["params"],
            "largest_macs": largest["macs"] / teacher["macs"],
            "largest_params": largest["params"] / teacher["params"],
            "largest_is": "the teacher" if largest == teacher else "the dearest options",
            "subnets": plan["subnets"],
            "trunk": plan["settings"]["space"]["trunk"],
            "seconds": round(seconds, 1),
            "gib": round(gib, 2),
        }
        print(
            f"{name}: {row['params'] / 1e6:.2f} M, {row['macs'] / 1e9:.2f} G MACs "
            f"({row['macs_without_attention'] / 1e9:.2f} without attention, "
            f"{row['macs_difference']:+.2%} of torch-pruning's), smallest "
            f"{row['smallest_macs']:.3f}, largest {row['largest_macs']:.3f} "
            f"({row['largest_is']}), {row['subnets']:.1e} architectures, "
            f"{row['seconds']} s, {row['gib']} GiB"
        )
    write_json(file, {"marks": MARKS, "rows": dict(sorted(rows.items()))})


if __name__ == "__main__":
    main()
