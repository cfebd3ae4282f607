"""From scores to an architecture: a file per rule, and the budget they all serve."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name

from diffnas.architecture import SUMS, Architecture, Cost, Scores
from diffnas.budget import Amount, Budget, beside_teacher, describe
from diffnas.errors import UserError
from diffnas.refusing import first_sentence
from diffnas.select.local import at_tolerance
from diffnas.select.table import ROUNDING, Rows, SummedCost, Table, make_table
from diffnas.settings import DEFAULT_RULE

GROUP = "diffnas.rules"

Rule = Callable[[Table, int], tuple[Rows, float]]
"""(table, seed) -> one row per block, within ``table.limits``, and a figure of the rule's own."""

RULES = {
    "local": "diffnas.select.local:local",
    "local-ratio": "diffnas.select.local:local_ratio",
    "global-exact": "diffnas.select.exact:global_exact",
    "global-evolution": "diffnas.select.evolution:global_evolution",
    "random": "diffnas.select.random:random",
}
"""Where ours are: solvers take a while to import, so only what is used is."""

ADDING = ("global-exact", "global-evolution")
"""Those that add up what the blocks lose."""


@dataclass(frozen=True)
class Selection:
    """An architecture and how it was found.

    ``tolerance``: the rule's own figure (s for 'local'); ``rows``: its rows in the score table, one
    for each block.
    ``predicted``: shares of the teacher's latency and memory, where these were given;
    ``measured``: what a measurement of the whole found.
    """

    architecture: Architecture
    cost: Cost
    tolerance: float
    rows: Rows
    predicted: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


def select(
    scores: Scores,
    budget: Budget,
    rule: str = DEFAULT_RULE,
    *,
    seed: int = 0,
    additive: Mapping[str, SummedCost] | None = None,
    whole: Mapping[str, tuple[float, Callable[[Architecture], float]]] | None = None,
) -> Selection:
    """The architecture a rule chooses within a budget (all its limits hold) or at a tolerance.

    ``additive`` and ``whole`` hold metrics other than MACs and parameters: costs that are sums, and
    the teacher's whole cost with the cost of any architecture.

    Raises:
        UserError: the rule is unknown, or no architecture of the space meets the budget.
    """
    check_rule(rule)
    absolute = {
        "macs": float(scores.space.teacher.macs),
        "params": float(scores.space.teacher.params),
        **{metric: cost.teacher for metric, cost in (additive or {}).items()},
        **{metric: teacher for metric, (teacher, _) in (whole or {}).items()},
    }
    limits = {
        metric: amount.of(absolute[metric]) / absolute[metric]
        for metric, amount in budget.limits().items()
    }
    shares = {
        metric: _share(measure, teacher) for metric, (teacher, measure) in (whole or {}).items()
    }
    table = make_table(scores, limits, additive, shares)
    if budget.tolerance is not None:
        tolerance = budget.tolerance
        rows = at_tolerance(table, table.costs["macs"], tolerance)
    else:
        for metric in budget.limits():
            check_reachable(metric, budget.limits(), table.smallest(metric), absolute[metric])
        rows, tolerance = _chosen(rule, table, seed)
        if not table.within_limits(rows):
            within = written(budget.limits())
            raise UserError(
                f"{within}: no architecture of this space meets all; raise one"
                if rule in RULES
                else f"--rule {rule}: what it chose is not within {within}; its package is at fault"
            )
    architecture = table.architecture(rows)
    predicted = {
        f"{metric}_share": table.total(metric, rows)
        for metric in {**(additive or {}), **(whole or {})}
    }
    cost = scores.space.cost_of(architecture)
    return Selection(architecture, cost, tolerance, table.own_rows(rows), predicted)


def check_tolerance(budget: Budget, rule: str) -> None:
    """Raise UserError for a tolerance beside another rule than the local one, whose it is."""
    if budget.tolerance is not None and rule not in ("local", DEFAULT_RULE):
        raise UserError(
            f"--tolerance {budget.tolerance:g}: is the local rule's, --rule {rule} has none; "
            "leave one of them out"
        )


def written(limits: Mapping[str, Amount]) -> str:
    """The limits as they are given on the command line."""
    return " ".join(
        f"--{metric} {amount.value:g}"
        if amount.relative
        else f"--{metric} {describe(amount, metric)}"
        for metric, amount in limits.items()
    )


def check_rule(name: str) -> None:
    """Refuse, before any work, a rule that could not choose.

    Raises:
        UserError: as :func:`find_rule`.
    """
    if name not in RULES:
        find_rule(name)


def find_rule(name: str) -> Rule:
    """The rule of that name: ours, or one that an installed package declares.

    A package declares rules as entry points of the group ``diffnas.rules``; ours come first.

    Raises:
        UserError: the name is unknown (with the nearest one) or cannot be that of a folder, or the
            package's rule does not load.
    """
    if name in RULES:
        rule: Rule = resolve_name(RULES[name])
        return rule
    entry = _declared(name)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f"--rule {name}: students' folders are named after their rule; its package should call "
            "it by letters, digits, '-', '_' and '.' alone"
        )
    with _laid_to(name, f"{entry.value} does not load"):
        rule = entry.load()
    return rule


def made_of(name: str) -> tuple[str, ...]:
    """What a choice by that rule hangs on: its name, and of a package's rule its source too."""
    if name in RULES:
        return (name,)
    module = inspect.getmodule(find_rule(name))
    try:
        return (name,) if module is None else (name, inspect.getsource(module))
    except (OSError, TypeError):  # compiled: it has no source
        return (name,)


def _chosen(name: str, table: Table, seed: int) -> tuple[Rows, float]:
    """What the rule chooses.

    Raises:
        UserError: a package's rule fails, or gives no row for a block.
    """
    rule = find_rule(name)
    if name in RULES:
        return rule(table, seed)
    with _laid_to(name, "it fails"):
        rows, figure = rule(table, seed)
        rows = {block: range(len(each))[rows[block]] for block, each in table.losses.items()}
        return rows, float(figure)


@contextmanager
def _laid_to(name: str, what: str) -> Iterator[None]:
    """Name the package's rule in whatever error its code raises."""
    try:
        yield
    except Exception as error:  # what a stranger's code raises cannot be known
        # Uncaught it would be taken for a fault of ours, which a user is asked to report.
        reason = f"{type(error).__name__}: {first_sentence(error)}"
        raise UserError(f"--rule {name}: {what} ({reason}); its package is at fault") from error


def _declared(name: str) -> EntryPoint:
    declared = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in declared:
        known = [*RULES, *declared]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise UserError(f"--rule {name}: unknown; {hint}")
    return declared[name]


def check_reachable(
    metric: str,
    limits: Mapping[str, Amount],
    smallest: float,
    teacher: float,
    *,
    beside: bool = False,
) -> None:
    """Raise UserError, naming the smallest reachable share, unless that limit can be met.

    ``beside``: less would be reachable without the others of MACs and parameters.
    """
    if limits[metric].of(teacher) * ROUNDING < smallest * teacher:
        names = [name for name in SUMS if name in limits and name != metric]
        others = written({name: limits[name] for name in names}) if beside else ""
        raise UserError(
            f"{written({metric: limits[metric]})}: the smallest reachable"
            f"{others and f' beside {others}'} is "
            f"{beside_teacher(limits[metric], metric, smallest * teacher, teacher)}; "
            f"raise {'one' if others else 'it'}, or allow smaller options in the space settings"
        )


def _share(
    measure: Callable[[Architecture], float], teacher: float
) -> Callable[[Architecture], float]:
    return lambda architecture: measure(architecture) / teacher
