"""What comparisons share: how a row is judged, its columns, and the arguments of the scripts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from timing import RESULTS

EVALUATE = ["evaluate.samples=2048", "evaluate.seeds=[0,1,2]"]
QUICK = ["supernet.steps=2", "score.images=16", "score.candidates=3", "score.output_images=16"]
QUICK += ["space.max_subnets=32", "evaluate.samples=128", "evaluate.seeds=[0,1]"]
QUICK += ["evaluate.sampler_steps=2"]
COLUMNS = ("frechet_distance", "frechet_distance_seen", "kernel_distance", "denoising_loss")


def arguments(
    description: str, name: str | None, forms: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """A parser with what all of them take; ``name``: of the results, unless another is given.

    What is compressed is a ``teacher``, or a ``form`` of these.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    if forms:
        parser.add_argument("form", choices=list(forms))
    else:
        parser.add_argument("teacher", nargs="?", default="digits")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--name", default=name)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    return parser


def assignments(args: argparse.Namespace) -> list[str]:
    """The settings that all rows have; those of the command line win."""
    return [*(QUICK if args.quick else EVALUATE), *args.assignments]


def value(measure: Any) -> float:
    """A number, or the mean over sampling seeds."""
    return float(measure["mean"] if isinstance(measure, dict) else measure)


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation (over training seeds)."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}
