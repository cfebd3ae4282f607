"""The README's first command on a clean copy of this checkout: minutes and what it prints.

    python benchmarks/demo.py

Installation and run are timed apart: the part of the command before the last `&&` is installation.
Writes benchmarks/results/demo.json with the student's metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import RESULTS

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Clone, install, run, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "demo.json")
    args = parser.parse_args()
    install, run = commands((ROOT / "README.md").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "diffnas"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        minutes = {"install": timed(install, clone), "run": timed(run, clone)}
        student = next((clone / "runs" / "demo" / "students").iterdir())
        metrics = json.loads((student / "metrics.json").read_text("utf-8"))
    found = {
        "cores": os.cpu_count(),
        "minutes": minutes,
        "ratios": ratios(metrics),
        "metrics": metrics,
    }
    print(json.dumps({key: found[key] for key in ("minutes", "ratios")}, indent=2))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")


def commands(readme: str) -> tuple[str, str]:
    """Its first line for a shell in two: what installs, and what runs."""
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    install, _, run = blocks[0].strip().rpartition(" && ")
    return install, run


def ratios(metrics: dict[str, Any]) -> dict[str, float]:
    """The student's measures over its teacher's."""
    return {
        key: mean(metrics["student"][key]) / mean(metrics["teacher"][key])
        for key in ("macs", "params", "latency_ms", "memory_bytes", "frechet_distance")
    }


def timed(command: str, folder: Path) -> float:
    """Minutes of a shell command."""
    began = time.monotonic()
    subprocess.run(["bash", "-c", command], cwd=folder, check=True)
    return round((time.monotonic() - began) / 60, 2)


def mean(measure: float | dict[str, float]) -> float:
    """A number, or the mean over sampling seeds."""
    return measure["mean"] if isinstance(measure, dict) else measure


if __name__ == "__main__":
    main()
