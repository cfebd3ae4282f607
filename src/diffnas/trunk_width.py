"""How wide a trunk a budget gets: the default of ``space.trunk``."""

import torch
from torch import nn

from diffnas.budget import Budget
from diffnas.errors import UserError
from diffnas.families import Family
from diffnas.measure.cost import call_cost, to_meta
from diffnas.settings import Settings, SpaceSettings
from diffnas.space import make_space, smallest_cost
from diffnas.student.modeling import trunk_groups

EXPONENT = 1 / 2
"""The trunk's width is the budget's share to this power; slots do the rest.

A ResNet layer costs the product of what it reads and what it is wide inside: at 1/2 both shrink
alike. Measured: the optimum is flat (docs/results.md).
"""


def with_trunk(
    settings: Settings, denoiser: nn.Module, family: Family, budget: Budget
) -> tuple[Settings, dict[str, str]]:
    """The settings with ``space.trunk`` filled in, and the reason if it was not given.

    Raises:
        UserError: as :func:`diffnas.space.make_space`.
    """
    space = settings.space
    if space.trunk is not None:
        return settings, {}
    of, shares = trunk_groups(denoiser), _shares(budget, denoiser, family)
    if space.preset != "full" or space.include != ("*",) or space.exclude:
        groups, why = of, "as only a part of the model is searched"
    elif not shares:
        groups, why = of, "as no share of the teacher's cost is asked for"
    else:
        groups = _groups(space, denoiser, family, shares, of)
        why = f"for {min(shares.values()):.3g} of the teacher's cost"
    share = groups / of
    filled = settings.model_copy(update={"space": space.model_copy(update={"trunk": share})})
    return filled, {"space.trunk": f"{share:g}, {groups} of {of} norm groups, {why}"}


def aimed_at(share: float) -> float:
    """The width, as a share of the teacher's, for a share of the teacher's cost."""
    return float(min(share, 1.0) ** EXPONENT)


def _shares(budget: Budget, denoiser: nn.Module, family: Family) -> dict[str, float]:
    """The budget's limits as shares of the teacher's, as far as counting can tell."""
    meta = to_meta(denoiser)
    cost = call_cost(meta, kwargs=family.example_inputs(meta, 1, torch.device("meta")))
    return {
        kind: amount.value if amount.relative else amount.value / getattr(cost, kind)
        for kind, amount in budget.limits().items()
        if amount.relative or kind in ("macs", "params")
    }


def _groups(
    space: SpaceSettings, denoiser: nn.Module, family: Family, shares: dict[str, float], of: int
) -> int:
    """The number nearest to the aim, or the next smaller one whose slots reach the shares."""
    aim = of * aimed_at(min(shares.values()))
    narrowest = of
    for groups in range(max(1, min(of, round(aim))), 0, -1):
        try:
            found = make_space(denoiser, family, space.model_copy(update={"trunk": groups / of}))
        except UserError:  # it does not divide
            continue
        narrowest, least = groups, smallest_cost(found)
        reached = (
            getattr(least, kind) <= share * getattr(found.teacher, kind)
            for kind, share in shares.items()
            if kind in ("macs", "params")
        )
        if all(reached):
            return groups
    return narrowest
