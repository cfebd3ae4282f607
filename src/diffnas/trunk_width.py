"""How wide a trunk a budget gets: the default of ``space.trunk``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from diffnas.architecture import SUMS, Space
from diffnas.budget import Budget
from diffnas.errors import UserError
from diffnas.families import Family
from diffnas.measure.cost import call_cost
from diffnas.measure.memory import memory_bytes
from diffnas.measure.meta import to_meta
from diffnas.reach import least
from diffnas.settings import Settings
from diffnas.space import make_space, trunk_size
from diffnas.student.edited import edited
from diffnas.ties import architectures, smallest

EXPONENT = 1 / 2
"""The trunk's width is the budget's share to this power; slots do the rest.

A ResNet layer costs the product of what it reads and what it is wide inside: at 1/2 both shrink
alike.
"""

STEPS = 8
"""Widths are eighths, so that budgets not far from each other share a search."""


def space_for(
    settings: Settings, denoiser: nn.Module, family: Family, budget: Budget
) -> tuple[Settings, Space, dict[str, str]]:
    """The settings with ``space.trunk`` filled in, their space, and what the trunk comes to.

    Raises:
        UserError: as :func:`diffnas.space.make_space`, or the teacher's own architecture is all
            there is.
    """
    filled, space, why = _with_trunk(settings, denoiser, family, budget)
    if space.trunk is None and architectures(space.blocks) == 1:
        asked = settings.space.model_dump(mode="json", exclude_defaults=True, exclude={"trunk"})
        named = ", ".join(f"space.{name} = {value}" for name, value in asked.items())
        raise UserError(
            f"{named or 'space'}: nothing is left to choose in {type(denoiser).__name__}; "
            "search more of it, or leave this out"
        )
    return filled, space, why


def _with_trunk(
    settings: Settings, denoiser: nn.Module, family: Family, budget: Budget
) -> tuple[Settings, Space, dict[str, str]]:
    """As :func:`space_for`, whatever the space holds."""
    meta, of = to_meta(denoiser), trunk_size(denoiser, family)

    def space_at(groups: int) -> Space:
        return make_space(meta, family, given.model_copy(update={"trunk": groups / of}))

    given = settings.space
    if given.trunk is not None:
        groups = max(1, round(of * given.trunk))
        reason = f"{given.trunk:g}, {groups} of {of} norm groups"
        return settings, make_space(meta, family, given), {"space.trunk": reason}
    if family.streams is None:
        return settings, make_space(meta, family, given), {}
    if given.preset != "full" or given.include != ("*",) or given.exclude:
        space, why = space_at(of), "as only a part of the model is searched"
    else:
        inputs = family.example_inputs(meta, 1, torch.device("meta"))
        shares = _shares(budget, partial(_cost, meta, inputs))
        if shares:
            space = _reaching(shares, of, space_at, partial(_least, meta, inputs))
            why = f"for {min(shares.values()):.3g} of the teacher's cost"
        else:
            space, why = space_at(of), "as no share of the teacher's cost is asked for"
    groups, _ = space.trunk or (of, of)
    share = groups / of
    filled = settings.model_copy(update={"space": given.model_copy(update={"trunk": share})})
    reason = f"{share:g}, {groups} of {of} norm groups, {why}"
    return filled, space, {"space.trunk": reason}


def aimed_at(share: float) -> float:
    """The width, as a share of the teacher's, for a share of the teacher's cost."""
    return round(STEPS * min(share, 1.0) ** EXPONENT) / STEPS


def _shares(budget: Budget, whole: Callable[[str], float | None]) -> dict[str, float]:
    """The budget's limits as shares of the teacher's, as far as counting can tell."""
    shares = {}
    for kind, amount in budget.limits().items():
        teacher = None if amount.relative else whole(kind)
        if amount.relative:
            shares[kind] = amount.value
        elif teacher is not None:
            shares[kind] = amount.value / teacher
    return shares


def _reaching(
    shares: Mapping[str, float],
    of: int,
    space_at: Callable[[int], Space],
    least_of: Callable[[Space, str, Mapping[str, float]], float | None],
) -> Space:
    """The space at the aim, or at the next below that divides and whose slots reach the shares.

    Where none below divides, the next above; where none reaches, the narrowest.
    """
    aim = max(1, min(of, round(of * aimed_at(min(shares.values())))))
    narrowest: Space | None = None
    for groups in (*range(aim, 0, -1), *range(aim + 1, of + 1)):
        if groups > aim and narrowest is not None:
            break
        try:
            space = space_at(groups)
        except UserError:  # it does not divide
            continue
        narrowest = space
        reached = {kind: least_of(space, kind, shares) for kind in shares}
        if all(found is None or found <= shares[kind] for kind, found in reached.items()):
            return space
    return narrowest or space_at(of)


def _least(
    meta: nn.Module,
    inputs: Mapping[str, Any],
    space: Space,
    kind: str,
    shares: Mapping[str, float],
) -> float | None:
    """With the cheapest options, as a share of the teacher's; None for what counting cannot tell.

    Memory takes a trace of the whole, so it is only looked at where it is asked for.
    """
    if kind in SUMS:
        wholes = {each: getattr(space.teacher, each) for each in SUMS}
        limits = {each: shares[each] * whole for each, whole in wholes.items() if each in shares}
        return least(space, kind, limits) / float(wholes[kind])
    if kind != "memory":
        return None
    least_of_macs = edited(meta, smallest(space.blocks), space)
    return memory_bytes(least_of_macs, inputs) / memory_bytes(meta, inputs)


def _cost(meta: nn.Module, inputs: Mapping[str, Any], kind: str) -> float | None:
    """What can be counted of one call at batch 1."""
    if kind == "memory":
        return memory_bytes(meta, inputs)
    if kind not in SUMS:
        return None
    return float(getattr(call_cost(meta, kwargs=inputs), kind))
