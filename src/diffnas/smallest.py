"""The smallest student at par: the paper's goal. Budgets fall until quality no longer holds."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

from diffnas.architecture import FORMAT
from diffnas.budget import Amount, Budget
from diffnas.checkpoint import write_json
from diffnas.errors import RunError
from diffnas.families.loading import load_skeleton
from diffnas.progress import Progress
from diffnas.run import Run, compress
from diffnas.settings import Settings
from diffnas.space import smallest_cost
from diffnas.trunk_width import space_for

FIRST = 0.5
FACTOR = 0.7
"""From one share of the MACs to the next: two steps about halve the cost."""

LARGER = (0.7, 0.85)
"""Shares tried where the first does not hold."""

CLOSE = 0.02
"""Shares nearer to each other than this are not told apart."""

SEEDS = (0, 1, 2)
"""Sampling seeds where only one was set: without a spread there is no verdict."""


def compress_smallest(
    model: str,
    *,
    data: str,
    out: Path,
    settings: Settings,
    progress: Progress | None = None,
    **further: Any,
) -> Run:
    """The smallest student at par, by MACs; every student tried stays in the run folder.

    Takes what :func:`diffnas.run.compress` takes but a budget. ``smallest.json`` lists what was
    tried. The same call goes on where it stopped.

    Raises:
        UserError: as :func:`diffnas.run.compress`.
        RunError: as there, or no student tried is at par.
    """
    progress = progress or Progress()
    if len(settings.evaluate.seeds) < 2:
        judged = settings.evaluate.model_copy(update={"seeds": SEEDS})
        settings = settings.model_copy(update={"evaluate": judged})
        progress.say(f"--smallest judges over several sampling seeds: evaluate.seeds={SEEDS}")
    tried: dict[float, dict[str, Any]] = {}

    def run_at(share: float) -> Run:
        budget = Budget(macs=Amount(share, relative=True))
        given = {**further, "budget": budget, "settings": settings, "progress": progress}
        return compress(model, data=data, out=out, **given)

    def holds(share: float) -> bool:
        run = run_at(share)
        metrics = run.students[run.name].metrics()
        tried[share] = found = verdict(metrics)
        progress.say(
            f"{share:.0%} of the MACs: Fréchet distance {found['student']:.3f}, teacher "
            f"{found['teacher']:.3f} + {found['error']:.3f}: {'' if found['par'] else 'not '}at par"
        )
        write_json(out / "smallest.json", {"format": FORMAT, "tried": tried})
        return bool(found["par"])

    skeleton = load_skeleton(model, revision=further.get("revision"))
    nothing = Budget(macs=Amount(0.0, relative=True))
    _, space, _ = space_for(settings, skeleton.denoiser, skeleton.family, nothing)
    share = lowest(holds, smallest_cost(space).macs / space.teacher.macs)
    if share is None:
        raise RunError(
            f"--smallest: no student at par up to {max(tried):.0%} of the teacher's MACs; "
            f"raise retrain.steps, or look at {out / 'smallest.json'} and choose a budget"
        )
    return run_at(share)


def verdict(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a student is at par: its held-out Fréchet distance within one standard error.

    par: mean(d) <= std(d) / sqrt(n), d = F_student - F_teacher of each of n sampling seeds: both
    start from the same noise, so what it does to both takes no part. One run is one training seed;
    ``benchmarks/par.py`` judges over several.
    """
    teacher, student = (metrics[side]["frechet_distance"] for side in ("teacher", "student"))
    differences = [s - t for s, t in zip(student["each"], teacher["each"], strict=True)]
    error = stdev(differences) / math.sqrt(len(differences))
    return {
        "teacher": teacher["mean"],
        "student": student["mean"],
        "error": error,
        "par": student["mean"] <= teacher["mean"] + error,
    }


def lowest(holds: Callable[[float], bool], least: float) -> float | None:
    """The lowest share that holds: from :data:`FIRST` by :data:`FACTOR`, then one bisection.

    ``least``: the smallest share the space reaches; none below it is tried.
    None: not even the largest tried holds.
    """
    good: float | None = None
    bad: float | None = None
    share = max(FIRST, _up(least))
    while holds(share):
        good = share
        share = max(round(FACTOR * share, 2), _up(least))
        if good - share < CLOSE:
            return good
    bad = share
    if good is None:
        for larger in (share for share in LARGER if share > bad):
            if holds(larger):
                good = larger
                break
            bad = larger
    if good is None:
        return None
    middle = round(math.sqrt(good * bad), 2)
    return middle if good - middle >= CLOSE and holds(middle) else good


def _up(share: float) -> float:
    """To two digits, not below."""
    return math.ceil(100 * share) / 100
