"""What compressing published models would hold of a GPU's memory, foretold from their configs.

    python benchmarks/memory_large.py

`diffnas plan`'s forecast for half the MACs and a CUDA device, which need not be there: GiB of each
stage as the defaults have it, and with all that saves memory. How near such forecasts come was
measured on small models alone (`memory.py`). Writes benchmarks/results/memory_large.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from plans import CONFIGS
from timing import RESULTS

from diffnas.budget import parse_budget
from diffnas.checkpoint import write_json
from diffnas.defaults import resolve_for
from diffnas.families.loading import load_skeleton
from diffnas.forecast.memory import stage_bytes
from diffnas.settings import load
from diffnas.trunk_width import space_for

SAVING = (
    *("precision=bf16", "teacher_precision=bf16", "supernet.groups=8"),
    *(f"{stage}.batch_size=1" for stage in ("supernet", "score", "retrain", "evaluate")),
    "retrain.gradient_checkpointing=true",
)


def gibibytes(folder: Path, assignments: tuple[str, ...]) -> dict[str, float | None]:
    """Of every stage."""
    teacher, budget = load_skeleton(str(folder)), parse_budget(macs=0.5)
    given = load(None, assignments)
    given, space, _ = space_for(given, teacher.denoiser, teacher.family, budget)
    resolved, _ = resolve_for(teacher, given)
    held = stage_bytes(teacher, space, resolved, torch.device("cuda"), budget)
    return {stage: None if size is None else round(size / 2**30, 1) for stage, size in held.items()}


def main() -> None:
    known = sorted(folder.name for folder in CONFIGS.iterdir())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=known, default=known, metavar="MODEL")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = {}
    for name in args.models:
        rows[name] = {
            how: gibibytes(CONFIGS / name, settings)
            for how, settings in (("defaults", ()), ("saving", SAVING))
        }
        for how, stages in rows[name].items():
            print(f"{name}, {how}: " + ", ".join(f"{k} {v} GiB" for k, v in stages.items()))
    write_json(args.results / "memory_large.json", {"saving": SAVING, "rows": rows})


if __name__ == "__main__":
    main()
