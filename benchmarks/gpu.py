"""Speed and memory on a GPU: of a supernet step, of both trainings, and of students of half size.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --models sd15 --rows step memory

Denoisers as large as those of Stable Diffusion 1.5 and XL and of DiT-XL/2 (`configs/`), random
weights, bfloat16. Rows of each: `step`, a supernet step over its floor, which is the teacher's
forward and the forward and backward of the same subnets as plain modules (`speed.py`); `memory`,
the most that both trainings allocate, beside what `diffnas plan` foretells; `eager` and `compiled`,
latency of one call of students of half the MACs, chosen by costs alone (`latency.py`), beside the
teacher's. Speed-up over what the MACs promise is "of the ideal". Marks: 1.10 over the floor; 0.85
of the ideal.

A row is written to benchmarks/results/gpu.json when it is measured; the same command goes on with
those that are missing or ran out of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_rows import MODELS, ROWS
from timing import RESULTS, machine, span

from diffnas.checkpoint import write_json

MARKS = {"over_floor": 1.10, "of the ideal": 0.85}


def measured(name: str, row: str, args: argparse.Namespace) -> dict[str, Any]:
    """A row, or that it does not fit."""
    try:
        return ROWS[row](name, args)
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def gib(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**30:.2f}"


def lines(row: str, found: dict[str, Any], batches: list[int]) -> Iterator[str]:
    """A row for people."""
    if "failed" in found:
        yield found["failed"]
    elif row == "step":
        yield (
            f"{span(found['over_floor'])} of the floor, {span(found['shared_ms'])} ms "
            f"at batch {found['batch_size']}"
        )
    elif row == "memory":
        for stage, cell in found.items():
            yield (
                f"{stage}: {gib(cell['bytes'])} GiB, foretold {gib(cell['foretold'])} "
                f"at batch {cell['batch_size']}"
            )
    else:
        for kind, cells in found.items():
            for batch in batches:
                cell = cells[f"batch {batch}"]
                yield (
                    f"{kind} ({cells['macs']:.2f} of the MACs), batch {batch}: "
                    f"{span(cell['ms'])} ms, {cell['speedup']['median']:.2f} times as fast, "
                    f"{cell['of the ideal']['median']:.2f} of the ideal, "
                    f"{gib(cell['bytes'])} GiB, foretold {gib(cell['foretold'])}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, help="of the trainings; else as by default")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="of the latencies")
    parser.add_argument("--steps", type=int, default=4, help="each with subnets of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10, help="calls in a round")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--quick", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.device, args.backend, args.batch_size = "cpu", "eager", 4
        args.steps, args.rounds, args.repeats = 1, 2, 1
    file = args.results / "gpu.json"
    taken = ("batch_size", "batches", "steps", "rounds", "repeats", "backend", "quick")
    about = {**machine(args.device), **{name: getattr(args, name) for name in taken}}
    report: dict[str, Any] = {"about": about, "marks": MARKS, "rows": {}}
    if file.exists() and (kept := json.loads(file.read_text()))["about"] == about:
        report = kept
    for name in args.models:
        for row in args.rows:
            key = f"{name} {row}"
            if "failed" in report["rows"].get(key, {"failed": ""}):
                report["rows"][key] = measured(name, row, args)
                write_json(file, report)
            for line in lines(row, report["rows"][key], args.batches):
                print(f"{key}: {line}")


if __name__ == "__main__":
    main()
