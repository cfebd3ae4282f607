"""What budgets on latency and memory need: costs that no counting on paper gives."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from diffnas.architecture import Architecture, Scores, Space
from diffnas.blocks import capture
from diffnas.budget import Amount, Budget
from diffnas.families import Teacher
from diffnas.measure.cost import to_meta
from diffnas.measure.latency import latency_ms
from diffnas.measure.memory import memory_bytes
from diffnas.select import Selection, select
from diffnas.select.table import OptionCosts
from diffnas.student.modeling import apply_edits, edit_module

Additive = Mapping[str, tuple[float, OptionCosts]]
Whole = Mapping[str, tuple[float, Callable[[Architecture], float]]]

CORRECTIONS = 5
"""Times a latency limit is tightened until the measured student keeps it."""


def option_metrics(teacher: Teacher, space: Space, budget: Budget) -> tuple[Additive, Whole]:
    """Latency of every option and memory of any architecture, as far as the budget asks."""
    additive: dict[str, tuple[float, OptionCosts]] = {}
    whole: dict[str, tuple[float, Callable[[Architecture], float]]] = {}
    if budget.latency is not None:
        additive["latency"] = _teacher_latency(teacher), option_latencies(teacher, space)
    if budget.memory is not None:
        whole["memory"] = memory_of(teacher, space)
    return additive, whole


def option_latencies(teacher: Teacher, space: Space, repeats: int = 20) -> dict[Any, float]:
    """Milliseconds of each (block, slot, option) at batch 1 on the teacher's device.

    Options of one slot take turns, on the teacher's own inputs.
    """
    device = next(teacher.denoiser.parameters()).device
    paths = [f"{block.name}.{slot.path}" for block in space.blocks for slot in block.slots]
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    _, calls = capture(teacher.denoiser, paths, inputs)
    found: dict[Any, float] = {}
    for block in space.blocks:
        for slot in block.slots:
            path = f"{block.name}.{slot.path}"
            own = teacher.denoiser.get_submodule(path)
            modules = {
                option.name: own if option.edit is None else edit_module(own, option.edit)
                for option in slot.options
            }
            call = calls[path]
            timed = latency_ms(
                {
                    name: partial(module, *call.args, **call.kwargs)
                    for name, module in modules.items()
                },
                device=device,
                repeats=repeats,
            )
            found |= {(block.name, slot.path, name): ms for name, ms in timed.items()}
    return found


def memory_of(teacher: Teacher, space: Space) -> tuple[float, Callable[[Architecture], float]]:
    """The teacher's bytes of one call at batch 1, and a function to any architecture's."""
    meta = to_meta(teacher.denoiser)
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))

    known: dict[str, float] = {}

    def of(architecture: Architecture) -> float:
        key = repr(architecture.blocks)
        if key not in known:
            known[key] = float(memory_bytes(_edited(meta, architecture, space), inputs))
        return known[key]

    return float(memory_bytes(meta, inputs)), of


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

    Latencies of options do not add up to that of the whole, so the limit is corrected by the
    ratio of predicted to measured latency, a few times at most.
    """
    limits = budget.limits()
    chosen = select(scores, budget, rule, seed=seed, additive=additive, whole=whole)
    if "latency" not in limits:
        return chosen
    teacher_ms = additive["latency"][0]
    asked = limits["latency"].of(teacher_ms) / teacher_ms
    limit = asked
    for _ in range(CORRECTIONS):
        share = _measured_share(teacher, chosen.architecture, scores.space)
        if share <= asked:
            return chosen
        limit *= 0.98 * asked / share
        tightened = replace(budget, latency=Amount(limit, relative=True))
        chosen = select(scores, tightened, rule, seed=seed, additive=additive, whole=whole)
    return chosen


def _measured_share(teacher: Teacher, architecture: Architecture, space: Space) -> float:
    device = next(teacher.denoiser.parameters()).device
    student = _edited(teacher.denoiser, architecture, space)
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    timed = latency_ms(
        {
            "teacher": partial(teacher.denoiser, **inputs),
            "student": partial(student, **inputs),
        },
        device=device,
    )
    return timed["student"] / timed["teacher"]


def _teacher_latency(teacher: Teacher) -> float:
    device = next(teacher.denoiser.parameters()).device
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    timed = latency_ms({"teacher": partial(teacher.denoiser, **inputs)}, device=device)
    return timed["teacher"]


def _edited(denoiser: Any, architecture: Architecture, space: Space) -> Any:
    """A copy with those modules changed, weights as they come: for measuring only."""
    edited = copy.deepcopy(denoiser)
    apply_edits(edited, architecture.edits(space))
    return edited.eval()
