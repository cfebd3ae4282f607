"""What budgets on latency and memory need: costs that no counting on paper gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from diffnas.architecture import Architecture, Scores, Space
from diffnas.budget import Amount, Budget, beside_teacher
from diffnas.errors import RunError, UserError
from diffnas.families import Teacher
from diffnas.measure.memory import memory_bytes
from diffnas.measure.meta import to_meta
from diffnas.select import Selection, select, written
from diffnas.select.table import Rows, SummedCost, make_table
from diffnas.student.edited import edited
from diffnas.timing import Timed, options_ms, paired_ms

Additive = Mapping[str, SummedCost]
Whole = Mapping[str, tuple[float, Callable[[Architecture], float]]]

CORRECTIONS = 5
"""Students measured whole at most, to come close below a latency limit."""

CLOSE = 0.95
"""A student at this share of its latency limit makes full use of it: no further one is tried."""

AIM = 0.98
"""The share of a latency limit at which a further student is aimed."""


def option_metrics(teacher: Teacher, space: Space, budget: Budget) -> tuple[Additive, Whole]:
    """Latency of every option and memory of any architecture, as far as the budget asks."""
    additive: dict[str, SummedCost] = {}
    whole: dict[str, tuple[float, Callable[[Architecture], float]]] = {}
    if budget.latency is not None:
        base = paired_ms(teacher, space.own, space)
        options = options_ms(teacher, space)
        additive["latency"] = SummedCost(base.teacher, options, base.student)
    if budget.memory is not None:
        whole["memory"] = memory_of(teacher, space)
    return additive, whole


def memory_of(teacher: Teacher, space: Space) -> tuple[float, Callable[[Architecture], float]]:
    """The teacher's bytes of one call at batch 1, and a function to any architecture's."""
    meta = to_meta(teacher.denoiser)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))

    known: dict[str, float] = {}

    def of(architecture: Architecture) -> float:
        key = repr(architecture.blocks)
        if key not in known:
            known[key] = float(memory_bytes(edited(meta, architecture, space), inputs))
        return known[key]

    return float(memory_bytes(meta, inputs)), of


@dataclass(frozen=True)
class Point:
    """A latency as predicted (share of the teacher's) and as measured (share of the limit)."""

    predicted: float
    measured: float


def within_latency(
    teacher: Teacher,
    scores: Scores,
    budget: Budget,
    rule: str,
    *,
    seed: int,
    additive: Additive,
    whole: Whole,
) -> Selection:
    """A selection whose whole latency, measured beside the teacher's, keeps the budget.

    Options timed alone do not add up to the whole: their savings are scaled to what the fastest
    architecture saves when measured. What is chosen is measured too; between the slowest that
    kept the limit and the fastest that did not, a next one is aimed at, a few times at most.

    Raises:
        UserError: not even the fastest architecture keeps the limit, or none that was measured
            keeps it together with the other limits.
        RunError: the measurements contradict each other.
    """
    limit = budget.latency
    if limit is None:
        return select(scores, budget, rule, seed=seed, additive=additive, whole=whole)
    rows, fastest = _fastest(scores, additive)
    first = paired_ms(teacher, fastest, scores.space)
    if first.of_limit(limit) > 1:
        raise UserError(
            f"{written({'latency': limit})}: the fastest architecture of this space measures "
            f"{beside_teacher(limit, 'latency', first.student, first.teacher)} on this device; "
            "raise it, or allow smaller options in the space settings"
        )
    scaled = _scaled(scores, additive, first)
    low = Point(min(first.share, 1.0), first.of_limit(limit))
    high = Point(1.0, first.teacher / limit.of(first.teacher))
    timed, tried = {_key(rows): first}, set()
    best: Selection | None = None
    asked, streak = budget, 0
    for left in reversed(range(CORRECTIONS + 1)):
        try:
            chosen = select(scores, asked, rule, seed=seed, additive=scaled, whole=whole)
        except UserError:
            if asked is budget:
                raise
            break  # A corrected limit is not the user's: the error below names theirs.
        key = _key(chosen.rows)
        if key in tried:
            break
        tried.add(key)
        if key not in timed:
            timed[key] = paired_ms(teacher, chosen.architecture, scores.space)
        point = Point(chosen.predicted["latency_share"], timed[key].of_limit(limit))
        if point.measured > 1:
            high, streak = point, min(streak, 0) - 1
        elif best is None or point.predicted > low.predicted:
            low, streak, best = point, max(streak, 0) + 1, _with_measured(chosen, timed[key])
        close = CLOSE <= point.measured <= 1 or low.predicted >= high.predicted
        if close or (left == 1 and best is not None):
            break
        # Where all missed, the last is what is known to keep the limit.
        aim = _between(low, high, streak) if left > 1 else low.predicted
        asked = replace(budget, latency=Amount(aim, relative=True))
    if best is not None:
        return best
    least = min(timed[key].share for key in tried)
    raise _none_kept(budget, len(tried), least, first)


def _fastest(scores: Scores, additive: Additive) -> tuple[Rows, Architecture]:
    """The architecture whose options' latencies sum up to the least."""
    table = make_table(scores, {}, additive)
    rows = {name: int(values.argmin()) for name, values in table.costs["latency"].items()}
    return table.own_rows(rows), table.architecture(rows)


def _scaled(scores: Scores, additive: Additive, fastest: Timed) -> Additive:
    """The same latencies, scaled so that the fastest architecture's are the measured one's."""
    teacher, options, base = additive["latency"]
    saved = teacher * (1 - make_table(scores, {}, additive).smallest("latency"))
    scale = max(0.0, fastest.teacher - fastest.student) / saved if saved > 0 else 0.0
    scaled = {option: scale * ms for option, ms in options.items()}
    saved_by_trunk = 0.0 if base is None else scale * (teacher - base)
    cost = SummedCost(fastest.teacher, scaled, fastest.teacher - saved_by_trunk)
    return {**additive, "latency": cost}


def _between(low: Point, high: Point, streak: int) -> float:
    """The predicted latency at which the measured one should come just below the limit.

    Regula falsi as the Illinois algorithm has it: an end that stayed ``streak`` times counts less
    (M. Dowell and P. Jarratt, BIT 11, 1971).
    """
    if high.measured <= 1:
        return high.predicted
    below = max(0.0, AIM - low.measured) * 0.5 ** max(0, -streak - 1)
    above = (high.measured - AIM) * 0.5 ** max(0, streak - 1)
    return low.predicted + below / (below + above) * (high.predicted - low.predicted)


def _with_measured(chosen: Selection, timed: Timed) -> Selection:
    return replace(
        chosen,
        measured={
            "latency_share": timed.share,
            "latency_ms": timed.student,
            "teacher_latency_ms": timed.teacher,
        },
    )


def _none_kept(budget: Budget, count: int, least: float, fastest: Timed) -> Exception:
    limits, whole = budget.limits(), fastest.teacher
    found = (
        f"{written(limits)}: no student that was timed ({count}) kept the latency; the fastest "
        f"measured {beside_teacher(limits['latency'], 'latency', least * whole, whole)}"
    )
    if len(limits) > 1:
        return UserError(f"{found}, beside the other limits; raise one")
    return RunError(
        f"{found}, though {fastest.share:.3g} of the teacher's was within reach before; "
        "run it again when nothing else keeps this device busy"
    )


def _key(rows: Rows) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(rows.items()))
