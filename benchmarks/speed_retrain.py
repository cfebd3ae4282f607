"""What Muon adds to a step of retraining. Run by `speed.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from latency import build, random_half
from timing import quartiles, seconds

from diffnas.architecture import Space
from diffnas.data import Data
from diffnas.defaults import resolve_for
from diffnas.families import Teacher
from diffnas.optimizer import muon_macs
from diffnas.retrain import Retraining
from diffnas.settings import parse


def retrain_row(
    teacher: Teacher, space: Space, data: Data, *, batch_size: int, steps: int, repeats: int
) -> dict[str, Any]:
    """Milliseconds of a step with either optimizer, taken in turns, and their ratio.

    The student is of half the MACs; the teacher is not asked, as in most of a retraining.
    """
    chosen = random_half(space)
    trainings = {}
    for name in ("adamw", "muon"):
        given = {"optimizer": name, "batch_size": batch_size, "schedule": "none"}
        settings, _ = resolve_for(teacher, parse({"retrain": given}))
        student: Any = build(teacher, chosen, space)
        trainings[name] = Retraining(
            student, teacher, data, settings.retrain, seed=0, precision="fp32"
        )
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for turn in range(repeats + 1):  # the first to warm up
        for name, training in trainings.items():
            taken = seconds(partial(_steps, training, range(turn * steps, (turn + 1) * steps)))
            if turn:
                times[name].append(1000 * taken / steps)
    ratios = [muon / adamw for adamw, muon in zip(times["adamw"], times["muon"], strict=True)]
    macs = 3 * batch_size * space.cost_of(chosen).macs
    return {
        **{f"{name}_ms": quartiles(each) for name, each in times.items()},
        "muon_over_adamw": quartiles(ratios),
        "macs_say": round(1 + muon_macs(trainings["muon"].student) / macs, 4),
    }


def _steps(training: Retraining, numbers: range) -> None:
    for number in numbers:
        training.step(number)
