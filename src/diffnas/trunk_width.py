"""How wide a trunk a budget gets: the default of ``space.trunk``."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from diffnas.architecture import Architecture, Space
from diffnas.budget import Budget
from diffnas.errors import UserError
from diffnas.families import Family
from diffnas.measure.cost import call_cost, to_meta
from diffnas.measure.memory import memory_bytes
from diffnas.settings import Settings, SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import apply_edits, trunk_groups

EXPONENT = 1 / 2
"""The trunk's width is the budget's share to this power; slots do the rest.

A ResNet layer costs the product of what it reads and what it is wide inside: at 1/2 both shrink
alike.
"""


STEPS = 8
"""Widths are eighths, so that budgets not far from each other share a search."""


def with_trunk(
    settings: Settings, denoiser: nn.Module, family: Family, budget: Budget
) -> tuple[Settings, dict[str, str]]:
    """The settings with ``space.trunk`` filled in, and what it comes to.

    Raises:
        UserError: as :func:`diffnas.space.make_space`.
    """
    space, of = settings.space, trunk_groups(denoiser)
    if space.trunk is not None:
        groups = max(1, round(of * space.trunk))
        return settings, {"space.trunk": f"{space.trunk:g}, {groups} of {of} norm groups"}
    if space.preset != "full" or space.include != ("*",) or space.exclude:
        groups, why = of, "as only a part of the model is searched"
    else:
        whole = _costs(to_meta(denoiser), family)
        shares = _shares(budget, whole)
        if shares:
            groups = _groups(space, denoiser, family, shares, whole)
            why = f"for {min(shares.values()):.3g} of the teacher's cost"
        else:
            groups, why = of, "as no share of the teacher's cost is asked for"
    share = groups / of
    filled = settings.model_copy(update={"space": space.model_copy(update={"trunk": share})})
    return filled, {"space.trunk": f"{share:g}, {groups} of {of} norm groups, {why}"}


def aimed_at(share: float) -> float:
    """The width, as a share of the teacher's, for a share of the teacher's cost."""
    return round(STEPS * min(share, 1.0) ** EXPONENT) / STEPS


def _costs(meta: nn.Module, family: Family) -> dict[str, float]:
    """What can be counted of one call at batch 1."""
    inputs = family.example_inputs(meta, 1, torch.device("meta"))
    cost = call_cost(meta, kwargs=inputs)
    return {"macs": cost.macs, "params": cost.params, "memory": memory_bytes(meta, inputs)}


def _shares(budget: Budget, whole: Mapping[str, float]) -> dict[str, float]:
    """The budget's limits as shares of the teacher's, as far as counting can tell."""
    return {
        kind: amount.of(whole[kind]) / whole[kind] if kind in whole else amount.value
        for kind, amount in budget.limits().items()
        if amount.relative or kind in whole
    }


def _groups(
    space: SpaceSettings,
    denoiser: nn.Module,
    family: Family,
    shares: Mapping[str, float],
    whole: Mapping[str, float],
) -> int:
    """The number at the aim, or the next below that divides and whose slots reach the shares.

    Where none below divides, the next above; where none reaches, the fewest.
    """
    of = trunk_groups(denoiser)
    aim = max(1, min(of, round(of * aimed_at(min(shares.values())))))
    possible: list[int] = []
    for groups in (*range(aim, 0, -1), *range(aim + 1, of + 1)):
        if groups > aim and possible:
            break
        try:
            found = make_space(denoiser, family, space.model_copy(update={"trunk": groups / of}))
        except UserError:  # it does not divide
            continue
        possible.append(groups)
        least = _costs(_smallest(denoiser, found), family)
        if all(least[kind] <= shares[kind] * whole[kind] for kind in shares if kind in least):
            return groups
    return min(possible, default=of)


def _smallest(denoiser: nn.Module, space: Space) -> nn.Module:
    """The denoiser with the cheapest options, for counting."""
    model = copy.deepcopy(to_meta(denoiser))
    cheapest = Architecture({block.name: block.smallest for block in space.blocks})
    apply_edits(model, cheapest.edits(space))
    return model
