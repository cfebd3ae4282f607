"""What a student saves, in other runtimes.

    pip install -e '.[onnx,openvino]'
    python benchmarks/exports.py

Teacher: the UNet of `latency.py` with random weights. Student: half its MACs by the rule 'random',
as there. Both are written by `diffnas export` in every format, compared with PyTorch and timed in
turns with it at batch 1, on the CPU; runtimes and PyTorch have as many threads as they take by
themselves. A speed-up is of the student over its teacher in the same runtime; teacher and student
are timed one after the other, so it holds while nothing else runs. Writes
benchmarks/results/exports.json.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from latency import build, random_half
from timing import RESULTS, machine
from untrained import as_teacher, cifar_unet, small_unet

from diffnas.checkpoint import write_json
from diffnas.export import export
from diffnas.names import FORMATS
from diffnas.settings import SpaceSettings
from diffnas.space import make_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--quick", action="store_true", help="a small UNet: to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    teacher = as_teacher(small_unet() if args.quick else cifar_unet())
    space = make_space(teacher.denoiser, teacher.family, SpaceSettings())
    chosen = random_half(space)
    share = space.cost_of(chosen).macs / space.teacher.macs
    models = {"teacher": teacher, "student": as_teacher(build(teacher, chosen, space))}
    rows: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for form in args.formats:
            made = {
                name: export(form, model, Path(folder) / f"{name}-{form}")["unet"]
                for name, model in models.items()
            }
            whole, student = made["teacher"], made["student"]
            rows[form] = {name: asdict(part) for name, part in made.items()} | {
                "speedup": round(whole.runtime_ms / student.runtime_ms, 3),
                "speedup in PyTorch": round(whole.pytorch_ms / student.pytorch_ms, 3),
            }
    print(f"student: {share:.3f} of the MACs; ms of a call, teacher / student (speed-up)")
    for form, row in rows.items():
        pair = (row["teacher"], row["student"])
        own = " / ".join(f"{part['runtime_ms']:.1f}" for part in pair)
        pytorch = " / ".join(f"{part['pytorch_ms']:.1f}" for part in pair)
        print(
            f"{form:<10}{own} ({row['speedup']:.2f})   "
            f"PyTorch {pytorch} ({row['speedup in PyTorch']:.2f})   "
            f"differs by {max(part['difference'] for part in pair):.0e}"
        )
    report = {"about": machine("cpu"), "macs": share, "formats": rows}
    write_json(args.results / "exports.json", report)


if __name__ == "__main__":
    main()
