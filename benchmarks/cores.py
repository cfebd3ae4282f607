"""What a second core is worth: the same short compression on one core, on two, and beside others.

    python benchmarks/cores.py
    python benchmarks/cores.py --teacher cifar --steps 8 --subnets 8 --name cores_cifar

The built-in digits, or the form of google/ddpm-cifar10-32 with random weights and images of noise.
Each turn runs `diffnas compress` in processes of their own: on one core, on two, and on two
of which another process keeps one busy. `least` is what no program can go below: two runs at once,
each on a core of its own, in half of their time; cores that share their units or their memory's
bandwidth slow each other. Turns are compared with themselves, since machines drift. Stages are
timed by the run's own log; start-up and evaluation are left out. Needs Linux, two cores and nothing
else running. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from timing import RESULTS, quartiles
from untrained import as_teacher, cifar_unet, noise

from diffnas.checkpoint import write_json

IMAGES = 512
"""As many as a held-out share needs at least."""

WAYS = ("one", "two", "two, one of them busy")
STAGES = ("supernet", "scores", "output errors", "retrain")
MARKS = {"two": 0.6, "two, one of them busy": 0.9}
"""Share of one core's time that was asked for, at most."""


BATCHES_OF_8 = (
    *(f"{stage}.batch_size=8" for stage in ("supernet", "score", "retrain")),
    *("score.images=16", "score.output_images=16", "score.candidates=3"),
)
"""Of a model whose steps take seconds."""


@dataclass(frozen=True)
class Work:
    """What is compressed, and with which settings."""

    teacher: str
    data: str
    settings: tuple[str, ...]


def work_of(name: str, folder: Path, steps: int, subnets: int) -> Work:
    """The digits, or a pipeline and images that are written to the folder."""
    settings = (
        f"supernet.steps={steps // 2}",
        f"retrain.steps={steps}",
        f"space.max_subnets={subnets}",
        "evaluate.samples=128",
        "evaluate.sampler_steps=2",
    )
    if name == "digits":
        return Work("digits", "digits", (*settings, "score.images=128"))
    teacher = as_teacher(cifar_unet())
    teacher.pipeline.save_pretrained(folder / "teacher")
    (folder / "images").mkdir()
    for number, pixels in enumerate(noise(teacher, IMAGES).images):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "images" / f"{number}.png")
    return Work(str(folder / "teacher"), str(folder / "images"), (*settings, *BATCHES_OF_8))


def stages(work: Work, folder: Path, cores: set[int]) -> dict[str, float]:
    """Seconds of the stages of one compression bound to those cores."""
    command = [*on(cores), "-m", "diffnas", "compress", work.teacher, "--data", work.data]
    command += ["--macs", "0.5", "--out", str(folder)]
    for setting in work.settings:
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


def turn(work: Work) -> dict[str, dict[str, float]]:
    """All ways, one after the other; seconds."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ThreadPoolExecutor(2) as pool:
            alone = [
                pool.submit(stages, work, Path(folder) / f"alone on {core}", {core})
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
                found[way] = stages(work, Path(folder) / str(len(found)), cores)
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=("digits", "cifar"), default="digits")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--subnets", type=int, default=1024, help="of a block, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default="cores", help="of the table there")
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.subnets, args.repeats = 4, 16, 2
    with tempfile.TemporaryDirectory() as folder:
        work = work_of(args.teacher, Path(folder), args.steps, args.subnets)
        turns = [turn(work) for _ in range(args.repeats)]
    report: dict[str, Any] = {
        "teacher": args.teacher,
        "steps": args.steps,
        "repeats": args.repeats,
        "marks": MARKS,
    }
    for way in ("least", *MARKS):
        report[way] = {
            stage: quartiles([each[way][stage] / each["one"][stage] for each in turns])
            for stage in STAGES
        }
        report[way]["all"] = quartiles(
            [sum(each[way].values()) / sum(each["one"].values()) for each in turns]
        )
        print(way, {stage: found["median"] for stage, found in report[way].items()})
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
