"""What a compression would be: blocks, options, reachable costs, hours and memory. No training."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from diffnas.architecture import SUMS, Architecture, BlockSpace, Cost, Space, joined
from diffnas.blocks import Call, capture
from diffnas.budget import Budget
from diffnas.defaults import resolve_for
from diffnas.device import resolve_device
from diffnas.embeddings import check_dropout
from diffnas.families import Teacher
from diffnas.families.loading import lacking, load_skeleton
from diffnas.families.noise import check_weighting
from diffnas.figures import figure
from diffnas.forecast.hours import hours
from diffnas.forecast.memory import stage_bytes
from diffnas.limits import memory_of
from diffnas.measure.cost import call_cost
from diffnas.measure.meta import FusedKernels, to_meta
from diffnas.measure.protocol import check_sampling
from diffnas.measure.references import check_samples
from diffnas.reach import least
from diffnas.select import ADDING, check_reachable, check_rule, check_tolerance, written
from diffnas.select.table import ROUNDING
from diffnas.settings import Settings
from diffnas.space import smallest_cost
from diffnas.student.edited import edited
from diffnas.ties import architectures, smallest
from diffnas.trunk_width import space_for

WORTH_A_WORD = 0.05
"""A module that is no slot is named from this share of the teacher's MACs or parameters on."""


def make_plan(
    model: str,
    budget: Budget,
    settings: Settings,
    *,
    images: int | None = None,
    revision: str | None = None,
    variant: str | None = None,
) -> dict[str, Any]:
    """The plan of a model from its configs alone; weights are not needed.

    Returns plain values: ``teacher``, ``smallest``, ``largest`` (params, macs,
    macs_without_attention), ``subnets``, ``blocks``, ``left``, ``budget``, ``notes``,
    ``settings``, ``reasons``, ``hours`` by stage and ``memory_bytes`` by stage.

    Raises:
        UserError: the model cannot be loaded or searched, or a setting is wrong.
    """
    check_rule(settings.select.rule)
    check_tolerance(budget, settings.select.rule)
    device = resolve_device(settings.device)
    teacher = load_skeleton(model, revision=revision)
    settings, space, why = space_for(settings, teacher.denoiser, teacher.family, budget)
    teacher.shapes(settings.data.crop)  # refused where it takes one alone
    check_dropout(teacher, settings.data.condition_dropout or 0.0)
    if settings.evaluate.features != "auto":  # which follow from the images
        check_samples("any", teacher.image_shape, settings.evaluate)
    if teacher.pipeline.scheduler is not None:
        check_weighting(teacher.scheduler.config, settings.retrain.snr_gamma)
        check_sampling(teacher, settings.evaluate)
    resolved, reasons = resolve_for(teacher, settings, images=images)
    made = describe(teacher, space, budget, resolved, why | reasons)
    refusals = [f"compress would refuse {line}" for line in lacking(teacher, variant)]
    return {
        **made,
        "notes": [*_alone(teacher), *made["notes"], *refusals],
        "hours": hours(teacher, space, budget, resolved, device, images=images),
        "memory_bytes": stage_bytes(teacher, space, resolved, device, budget),
    }


def describe(
    teacher: Teacher,
    space: Space,
    budget: Budget,
    resolved: Settings,
    reasons: Mapping[str, str],
) -> dict[str, Any]:
    """The part of a plan that costs only counting."""
    reached = _reached(teacher, space, budget)
    return {
        "teacher": asdict(space.teacher),
        "smallest": asdict(smallest_cost(space)),
        "largest": asdict(_largest_cost(space)),
        "subnets": architectures(space.blocks),
        "blocks": [_block(block, space.teacher) for block in space.blocks],
        "left": left_as_they_are(teacher, space),
        "budget": {
            kind: {
                "limit": limit,
                "teacher": whole,
                "smallest": lowest,
                "reachable": lowest <= limit * ROUNDING,
            }
            for kind, (whole, lowest) in reached.items()
            for limit in [budget.limits()[kind].of(whole)]
        },
        "notes": [
            *_one_alone(space),
            *_loose(budget, reached),
            *_not_adding_up(budget, resolved),
        ],
        "settings": resolved.model_dump(mode="json"),
        "reasons": dict(reasons),
    }


def check_budget(teacher: Teacher, space: Space, budget: Budget) -> None:
    """Raise UserError for a limit that no architecture of the space can meet.

    A latency is only known once measured, and is checked then.
    """
    for kind, (whole, reached) in _reached(teacher, space, budget).items():
        limit = budget.limits()[kind].of(whole)
        alone = float(getattr(smallest_cost(space, kind), kind)) if kind in SUMS else reached
        found = alone if alone > limit else reached
        check_reachable(kind, budget.limits(), found / whole, whole, beside=found > alone)


def _alone(teacher: Teacher) -> Iterator[str]:
    """Of a denoiser without a pipeline that it is one, and what it is told in a call."""
    if teacher.alone:
        told = teacher.family.example_condition(teacher.denoiser, 1, torch.device("meta"))
        rows = [
            f"{name} {' x '.join(map(str, each.shape[1:]))}".strip() for name, each in told.items()
        ]
        yield (
            f"a denoiser alone, told {', '.join(rows) or 'nothing'}: no scheduler, autoencoder or "
            "text encoder is counted"
        )


def _one_alone(space: Space) -> Iterator[str]:
    """That nothing is chosen, where narrower streams are all that a student has of its own."""
    if architectures(space.blocks) == 1:
        yield "the space holds one architecture, with narrower streams: nothing is chosen"


def _loose(budget: Budget, reached: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Of each limit above what the teacher costs, which may be a slip of its unit, that it is."""
    for kind, (whole, _) in reached.items():
        limit = budget.limits()[kind]
        if limit.of(whole) > whole:
            yield (
                f"{written({kind: limit})}: above the teacher's own {figure(kind, whole)}, so it "
                "asks for nothing smaller"
            )


def _not_adding_up(budget: Budget, settings: Settings) -> Iterator[str]:
    """That block losses are to be added up, where they are."""
    rule = settings.select.rule
    if settings.score.by == "block" and rule in ADDING and budget.tolerance is None:
        yield (
            f"score.by = block: {rule} adds losses up, and those of blocks have no common unit; "
            "select.rule = local goes with them"
        )


def left_as_they_are(teacher: Teacher, space: Space) -> list[str]:
    """Modules without a slot that have more than 5 % of the MACs or parameters, in words."""
    inside = [joined(block.name, slot.path) for block in space.blocks for slot in block.slots]
    meta = edited(to_meta(teacher.denoiser), space.own, space)
    found = dict(_outermost(meta, inside))
    parts = [f"{path}{rest}" for path, module in found.items() for rest in _paths(module)]
    inputs = teacher.family.example_inputs(meta, 1, torch.device("meta"))
    with FusedKernels():
        _, calls = capture(meta, parts, inputs)
    lines = []
    for path, module in found.items():
        macs = _macs(path, module, calls) / space.teacher.macs
        params = sum(p.numel() for p in module.parameters()) / space.teacher.params
        if max(macs, params) > WORTH_A_WORD:
            kind = type(module).__name__
            lines.append(f"{path} ({kind}), {macs:.0%} of the MACs, {params:.0%} of the parameters")
    return lines


def _paths(module: nn.Module) -> list[str]:
    """The module and all inside it, as what follows its own path."""
    return [f".{name}" if name else "" for name, _ in module.named_modules()]


def _macs(path: str, module: nn.Module, calls: Mapping[str, Call]) -> int:
    """Of a module's call; a mere list is never called itself, only what it holds."""
    if path in calls:
        return call_cost(module, calls[path].args, calls[path].kwargs).macs
    return sum(_macs(f"{path}.{name}", child, calls) for name, child in module.named_children())


def _outermost(module: nn.Module, inside: list[str], prefix: str = "") -> Any:
    """Modules outside of all slots: as far out as no slot lies inside."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in inside:
            continue
        if any(slot.startswith(f"{path}.") for slot in inside):
            yield from _outermost(child, inside, f"{path}.")
        else:
            yield path, child


def _block(block: BlockSpace, teacher: Cost) -> dict[str, Any]:
    return {
        "name": block.name,
        "subnets": block.size,
        "share_macs": block.cost.macs / teacher.macs,
        "slots": [
            {
                "path": slot.path,
                "kind": slot.kind,
                "options": [option.name for option in slot.options],
            }
            for slot in block.slots
        ],
    }


def _reached(teacher: Teacher, space: Space, budget: Budget) -> dict[str, tuple[float, float]]:
    """(the teacher's, the smallest reachable) of each limited cost that counting can tell."""
    limits = budget.limits()
    wholes = {kind: float(getattr(space.teacher, kind)) for kind in SUMS if kind in limits}
    given = {kind: limits[kind].of(whole) for kind, whole in wholes.items()}
    found = {kind: (whole, least(space, kind, given)) for kind, whole in wholes.items()}
    if "memory" in limits:
        whole, bytes_of = memory_of(teacher, space)
        found["memory"] = whole, bytes_of(smallest(space.blocks))
    return found


def _largest_cost(space: Space) -> Cost:
    """The whole's cost with every slot at its most MACs: the teacher's own, if none has more."""
    most = {
        block.name: {
            slot.path: max(slot.options, key=lambda option: option.cost.macs).name
            for slot in block.slots
        }
        for block in space.blocks
    }
    return space.cost_of(Architecture(most))
