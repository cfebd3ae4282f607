"""The front of cost against errors: what every budget would give, before any retraining.

Errors are what selection goes by: a replaced block's at the output, or block losses.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffnas import score_table
from diffnas.architecture import SUMS, Architecture, Cost, Scores
from diffnas.budget import Amount, Budget
from diffnas.errors import UserError
from diffnas.select import check_rule, select
from diffnas.select.table import make_table
from diffnas.settings import BY_COSTS, DEFAULT_RULE, saved_settings
from diffnas.trunk_width import aimed_at


@dataclass(frozen=True)
class Point:
    """One architecture of the front.

    ``macs`` and ``params``: shares of the teacher's; ``trunk``: of its streams' width. ``loss``:
    the sum of its blocks' errors, over that of the subnets of the teacher's own options; ``worst``:
    the largest error over its own benchmark.
    """

    macs: float
    params: float
    trunk: float
    loss: float
    worst: float
    cost: Cost
    architecture: Architecture


def front(
    run: str | Path,
    *,
    metric: str = "macs",
    rule: str = DEFAULT_RULE,
    points: int = 20,
    seed: int | None = None,
) -> list[Point]:
    """What a rule chooses at budgets from the teacher's cost to the smallest, dearest first.

    Where the run has scores for several trunks, each budget has the one nearest to what
    ``compress`` would take.

    ``run``: a run folder with scores; ``metric``: 'macs' or 'params'; ``points``: so many budgets,
    evenly spaced; two that give the same architecture are one point; ``seed``: the run's unless
    given. Nothing is trained, and errors do not tell quality after retraining, only what is worth
    retraining.

    Raises:
        UserError: no scores there, an unknown metric or rule, or fewer than two points.
    """
    if metric not in SUMS:
        raise UserError(f"--metric {metric}: unknown; one of {', '.join(SUMS)}")
    check_rule(rule)
    if points < 2:
        raise UserError(f"--points {points}: a front needs 2 or more")
    folder = Path(run).expanduser()
    tables = read_scores(folder, rule)
    if seed is None:
        seed = int(saved_settings(folder / "settings.yaml").get("seed") or 0)
    least = [make_table(scores, {}).smallest(metric) for scores in tables]
    found: list[Point] = []
    for share in np.linspace(1.0, min(least), points):
        scores = min(
            (each for each, reached in zip(tables, least, strict=True) if reached <= share),
            key=lambda each: abs(_width(each) - aimed_at(share)),
        )
        amount = Amount(float(share), relative=True)
        budget = Budget(macs=amount) if metric == "macs" else Budget(params=amount)
        point = _point(scores, budget, rule, seed)
        if not found or _same_as(point) != _same_as(found[-1]):
            found.append(point)
    return found


def read_scores(run: Path, rule: str = DEFAULT_RULE) -> list[Scores]:
    """The score tables of a run folder's last search, one a trunk: those that the rule selects by.

    Raises:
        UserError: none there, or one of a newer format.
    """
    if not run.is_dir():
        raise UserError(f"RUN {run}: no such folder; name the --out of a 'diffnas compress'")
    found: list[tuple[float, Scores]] = []
    saved = saved_settings(run / "settings.yaml")
    how, chosen = saved.get("score"), saved.get("select")
    by_block = isinstance(how, dict) and how.get("by") == "block"
    name = "scores" if by_block or rule in BY_COSTS else "output-errors"
    for folder in (run, *sorted(run.glob("trunk-*"))):
        file = folder / f"{name}.safetensors"
        table = score_table.read(file)
        if table is not None:
            found.append((file.stat().st_mtime, table))
    if found:
        _, last = max(found, key=lambda each: each[0])
        return [table for _, table in found if table.search == last.search]
    if not (run / "plan.json").exists():
        raise UserError(f"RUN {run}: no run folder; name the --out of a 'diffnas compress'")
    # Of a run by such a rule the same command would measure no errors again.
    other = name != "scores" and isinstance(chosen, dict) and chosen.get("rule") in BY_COSTS
    raise UserError(
        f"RUN {run}: no whole {name}.safetensors, which selection goes by; run its "
        f"'diffnas compress' again, {f'now by --rule {rule}, ' if other else ''}"
        "with '--until scores' if no student is wanted"
    )


def _point(scores: Scores, budget: Budget, rule: str, seed: int) -> Point:
    chosen = select(scores, budget, rule, seed=seed)
    losses = {name: block.losses for name, block in scores.blocks.items()}
    taken = {name: float(losses[name][row]) for name, row in chosen.rows.items()}
    own = {name: max(float(each[0]), 1e-12) for name, each in losses.items()}
    teacher = scores.space.teacher
    return Point(
        chosen.cost.macs / teacher.macs,
        chosen.cost.params / teacher.params,
        _width(scores),
        sum(taken.values()) / sum(own.values()),
        max(taken[name] / own[name] for name in own),
        chosen.cost,
        chosen.architecture,
    )


def _same_as(point: Point) -> tuple[float, Architecture]:
    """What makes two points the same."""
    return point.trunk, point.architecture


def _width(scores: Scores) -> float:
    """Of the streams, as a share of the teacher's."""
    kept, of = scores.space.trunk or (1, 1)
    return kept / of
