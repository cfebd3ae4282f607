"""What a compression computes, as a share of its teacher's own training.

    python benchmarks/compute.py digits --teacher-steps 8000 --macs 0.25
    python benchmarks/compute.py digits --teacher-steps 8000 --set retrain.output_weight=0

In MACs, by the counts that `diffnas plan` foretells its hours from: a training step is three
passes of what is trained, and one of the teacher where it is asked. The teacher's training: as many
steps as it took, of as many images as retraining's. Evaluation is left out on both sides. Counts
only, nothing is run. Prints a row.
"""

from __future__ import annotations

import argparse

from torch import nn

from diffnas import settings as all_settings
from diffnas.budget import Budget, parse_budget
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
    args = parser.parse_args()
    budget = parse_budget(macs=args.macs)
    teacher = load_skeleton(args.teacher)
    macs, step = compression(teacher, all_settings.load(None, tuple(args.assignments)), budget)
    shares = {stage: each / (args.teacher_steps * step) for stage, each in macs.items()}
    parts = ", ".join(f"{stage} {share:.3f}" for stage, share in shares.items())
    print(f"{args.teacher} at {args.macs}: {sum(shares.values()):.3f} ({parts})")


if __name__ == "__main__":
    main()
