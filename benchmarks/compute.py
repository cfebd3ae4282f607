"""What a compression computes, as a share of its teacher's own training.

    python benchmarks/compute.py digits --teacher-steps 8000 --macs 0.25
    python benchmarks/compute.py digits --teacher-steps 8000 --set supernet.steps=250 \
        --recipe retrain.optimizer=muon,retrain.steps=4000 --recipe retrain.steps=13000

In MACs, by the counts that `diffnas plan` foretells its hours from: a training step is three
passes of what is trained, and one of the teacher where it is asked. The teacher's training: as many
steps as it took, of as many images as retraining's. Evaluation is left out on both sides. Counts
only, nothing is run. A recipe is settings joined by commas. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timing import RESULTS
from torch import nn

from diffnas import settings as all_settings
from diffnas.budget import Budget, parse_budget
from diffnas.checkpoint import write_json
from diffnas.defaults import resolve_for
from diffnas.families import Teacher
from diffnas.families.loading import load_skeleton
from diffnas.forecast.hours import BACKWARD, asked_share, stage_macs
from diffnas.forecast.updates import update_macs
from diffnas.settings import RetrainSettings, Settings
from diffnas.trunk_width import space_for


def compression(
    teacher: Teacher, given: Settings, budget: Budget, *, images: int | None = None
) -> tuple[dict[str, float], float]:
    """MACs of a compression's stages, and of one step of the teacher's own training."""
    given, space, _ = space_for(given, teacher.denoiser, teacher.family, budget)
    resolved, _ = resolve_for(teacher, given, images=images)
    assert resolved.retrain.batch_size is not None
    macs = stage_macs(teacher, space, budget, resolved)
    training = (1 + BACKWARD) * space.teacher.macs * resolved.retrain.batch_size
    return {stage: macs[stage] for stage in ("supernet", "scores", "retrain")}, training


def step_macs(model: nn.Module, macs: float, whole: float, how: RetrainSettings) -> float:
    """MACs of a retraining step of a model of ``macs`` a call, its teacher's being ``whole``."""
    assert how.batch_size is not None
    passes = (1 + BACKWARD) * macs + asked_share(how) * whole
    return how.batch_size * passes + update_macs(model, how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("--teacher-steps", type=int, required=True)
    parser.add_argument("--macs", default="0.5")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--recipe", dest="recipes", action="append", help="one by default: none")
    parser.add_argument("--name", default="compute")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    teacher, budget = load_skeleton(args.teacher), parse_budget(macs=args.macs)
    rows = {}
    for recipe in args.recipes or [""]:
        given = (*args.assignments, *filter(None, recipe.split(",")))
        macs, step = compression(teacher, all_settings.load(None, given), budget)
        shares = {stage: each / (args.teacher_steps * step) for stage, each in macs.items()}
        rows[recipe] = {**shares, "total": sum(shares.values())}
        figures = ", ".join(f"{stage} {share:.3f}" for stage, share in rows[recipe].items())
        print(f"{args.teacher} at {args.macs}{recipe and f' with {recipe}'}: {figures}")
    report = {
        "teacher": args.teacher,
        "teacher_steps": args.teacher_steps,
        "macs": args.macs,
        "settings": args.assignments,
        "recipes": rows,
    }
    write_json(args.results / f"{args.name}.json", report)


if __name__ == "__main__":
    main()
