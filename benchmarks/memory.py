"""Memory of every stage as `diffnas plan` foretells it, and as it is measured.

    python benchmarks/memory.py
    python benchmarks/memory.py --models sd --stages supernet retrain --device cuda

Models of random weights: `unet`, the form of google/ddpm-cifar10-32; `trunk`, the same with the
narrower streams that half its MACs get; `saving`, that one with what saves memory (blocks trained
in three groups, gradients checkpointed); `half`, with its teacher in bfloat16; `sd`, a Stable
Diffusion of 128 x 128 pixels with text encoder and autoencoder; `dit`, as large as DiT-S/2. Each
stage runs in a process of its own, a few steps long. On a CPU: its peak resident memory above what
it has after the same stage of a tiny model, which loads all that libraries load on their first
call. On a GPU: the most that was allocated.

A row is written to benchmarks/results/memory.json when it is measured; the same command goes on
with those that are missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from memory_models import MODELS
from memory_stages import STAGES, foretold, measured, searched
from timing import RESULTS, machine

from diffnas.checkpoint import write_json

MARK = 0.25
"""By how much a foretold amount may be off."""


def alone(work: Callable[..., Any], *given: Any, **further: Any) -> Any:
    """What a function gives, in a process of its own that has imported all of it."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(work, *given, **further).result()


def row(model: str, stages: list[str], device: str, *, quick: bool) -> dict[str, Any]:
    """Stages of a model, foretold and measured, in bytes."""
    for small in {True, quick} if stages else ():
        searched(model, quick=small)  # once: all processes begin as copies of this one
    expected = alone(foretold, model, device, quick=quick) if stages else {}
    found = {}
    for stage in [stage for stage in stages if stage in expected]:
        peak = alone(measured, model, stage, device, quick=quick)
        ratio = round(expected[stage] / peak, 3)
        found[stage] = {"foretold": expected[stage], "measured": peak, "ratio": ratio}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="tiny models: to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    file = args.results / "memory.json"
    about = {**machine(args.device), "quick": args.quick}
    report: dict[str, Any] = {"about": about, "mark": MARK, "rows": {}}
    if file.exists() and (kept := json.loads(file.read_text()))["about"] == about:
        report = kept
    for model in args.models:
        known = report["rows"].setdefault(model, {})
        left = [stage for stage in args.stages if stage not in known]
        known |= row(model, left, args.device, quick=args.quick)
        write_json(file, report)
        for stage, cell in known.items():
            amounts = (f"{cell[key] / 2**20:9.0f}" for key in ("foretold", "measured"))
            off = "" if abs(cell["ratio"] - 1) <= MARK else "  off"
            print(f"{model:<6}{stage:<10}{'  '.join(amounts)} MiB  {cell['ratio']:.2f}{off}")


if __name__ == "__main__":
    main()
