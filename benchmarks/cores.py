"""What a second core is worth: the same short compression on one core, on two, and beside others.

    python benchmarks/cores.py

Each turn runs `diffnas compress digits` in processes of their own: on one core, on two, and on two
of which another process keeps one busy. `least` is what no program can go below: two runs at once,
each on a core of its own, in half of their time; cores that share their units or their memory's
bandwidth slow each other. Turns are compared with themselves, since machines drift. Stages are
timed by the run's own log; start-up and evaluation are left out. Needs Linux, two cores and nothing
else running. Writes benchmarks/results/cores.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from timing import RESULTS, quartiles

from diffnas.checkpoint import write_json

WAYS = ("one", "two", "two, one of them busy")
STAGES = ("supernet", "scores", "output errors", "retrain")
MARKS = {"two": 0.6, "two, one of them busy": 0.9}
"""Share of one core's time that was asked for, at most."""


def stages(folder: Path, cores: set[int], steps: int, subnets: int) -> dict[str, float]:
    """Seconds of the stages of one compression bound to those cores."""
    command = [*on(cores), "-m", "diffnas", "compress", "digits", "--data", "digits"]
    command += ["--macs", "0.5", "--out", str(folder)]
    for setting in (
        f"supernet.steps={steps // 2}",
        f"retrain.steps={steps}",
        f"space.max_subnets={subnets}",
        "score.images=128",
        "evaluate.samples=128",
        "evaluate.sampler_steps=2",
    ):
        command += ["--set", setting]
    environment = {key: text for key, text in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=environment,
    )
    metrics = json.loads((folder / "students/macs-0.5/metrics.json").read_text())
    return {stage: float(metrics["seconds"][stage]) for stage in STAGES}


def on(cores: set[int]) -> list[str]:
    """The same Python, bound to those cores."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), sys.executable]


def turn(steps: int, subnets: int) -> dict[str, dict[str, float]]:
    """All ways, one after the other; seconds."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ThreadPoolExecutor(2) as pool:
            alone = [
                pool.submit(stages, Path(folder) / f"alone on {core}", {core}, steps, subnets)
                for core in (first, second)
            ]
            both = [each.result() for each in alone]
        found["least"] = {stage: (both[0][stage] + both[1][stage]) / 4 for stage in STAGES}
        for way in WAYS:
            cores = {first} if way == "one" else {first, second}
            busy = None
            if way.endswith("busy"):
                busy = subprocess.Popen([*on({second}), "-c", "while True: pass"])
            try:
                found[way] = stages(Path(folder) / str(len(found)), cores, steps, subnets)
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    return found


def shares(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Each stage's time, and all of it, as a share of one core's in the same turn."""

    def share(way: str, stages: tuple[str, ...]) -> dict[str, float]:
        return quartiles(
            [
                sum(each[way][s] for s in stages) / sum(each["one"][s] for s in stages)
                for each in turns
            ]
        )

    return {
        way: {**{stage: share(way, (stage,)) for stage in STAGES}, "all": share(way, STAGES)}
        for way in ("least", *MARKS)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--subnets", type=int, default=1024, help="of a block, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.subnets, args.repeats = 4, 16, 2
    turns = [turn(args.steps, args.subnets) for _ in range(args.repeats)]
    report = {"steps": args.steps, "repeats": args.repeats, "marks": MARKS, **shares(turns)}
    for way in ("least", *MARKS):
        print(way, {stage: found["median"] for stage, found in report[way].items()})
    write_json(args.results / "cores.json", report)


if __name__ == "__main__":
    main()
