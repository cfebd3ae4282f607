"""What a student may cost: budgets as people write them, and their names."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffnas.errors import UserError
from diffnas.figures import figure, significant

Written = str | float | int | None
"""A budget as given: ``0.5``, ``"50%"``, ``"3.1G"``, ``"20M"``, ``"12ms"``, ``"2GiB"``."""

_COUNTS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS: dict[str, dict[str, float]] = {
    "macs": _COUNTS,
    "params": {"K": 1e3, "M": 1e6, "B": 1e9},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "memory": {
        **{"KB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    },
}
_EXAMPLES = {"macs": "3.1G", "params": "20M", "latency": "12ms", "memory": "512MiB"}

LEGIBLE = (0.1, 1e5)
"""Of a unit: less or more is told in one that suits it better."""


@dataclass(frozen=True)
class Amount:
    """A limit: a share of the teacher's (``relative``), or absolute.

    Absolute values are MACs, parameters, milliseconds or bytes.
    """

    value: float
    relative: bool

    def of(self, teacher: float) -> float:
        """The limit in absolute terms, given what the teacher costs."""
        return self.value * teacher if self.relative else self.value


@dataclass(frozen=True)
class Budget:
    """Costs of the denoiser not to exceed (all must hold), or a tolerance instead."""

    macs: Amount | None = None
    params: Amount | None = None
    latency: Amount | None = None
    memory: Amount | None = None
    tolerance: float | None = None

    def limits(self) -> dict[str, Amount]:
        """The limits that were given, by cost."""
        given = {kind: getattr(self, kind) for kind in _UNITS}
        return {kind: amount for kind, amount in given.items() if amount is not None}

    @property
    def name(self) -> str:
        """Name of the student's folder; however a budget is written, its name is the same."""
        if self.tolerance is not None:
            return f"tolerance-{_number(self.tolerance)}"
        return "-".join(f"{kind}-{_text(amount, kind)}" for kind, amount in self.limits().items())


def check_alone(flag: str, others: Mapping[str, object]) -> None:
    """Refuse further flags beside one that goes alone.

    Raises:
        UserError: naming the first of them.
    """
    for name, value in others.items():
        if value is not None:
            raise UserError(f"{flag} contradicts --{name} {value}: give one or the other")


def parse_budget(
    *,
    macs: Written = None,
    params: Written = None,
    latency: Written = None,
    memory: Written = None,
    tolerance: Written = None,
) -> Budget:
    """The budget from what was written; half the MACs where nothing was.

    Raises:
        UserError: not a number, not above zero, a share above 1, a unit of something else, or
            a tolerance beside other budgets.
    """
    written = {"macs": macs, "params": params, "latency": latency, "memory": memory}
    given = {kind: value for kind, value in written.items() if value is not None}
    if tolerance is None:
        if not given:
            return Budget(macs=Amount(0.5, relative=True))
        amounts: dict[str, Any] = {kind: _amount(kind, value) for kind, value in given.items()}
        return Budget(**amounts)
    if given:
        others = " ".join(f"--{kind} {value}" for kind, value in given.items())
        raise UserError(
            f"--tolerance {tolerance} contradicts {others}: a budget finds its own tolerance; "
            f"give one or the other"
        )
    value = _float(str(tolerance).strip())
    if value is None or value <= 0:
        raise UserError(
            f"--tolerance {tolerance}: must be a number above 0; "
            f"2 lets each block lose up to twice its benchmark"
        )
    return Budget(tolerance=_rounded(value))


def _amount(kind: str, written: str | float) -> Amount:
    setting = f"--{kind} {written}"
    forms = f"give a share of the teacher's (0.5, 50%) or an amount such as {_EXAMPLES[kind]}"
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([a-zA-Z]*|%)\s*", str(written))
    value = _float(match[1]) if match else None
    if match is None or value is None:
        raise UserError(f"{setting}: not a number; {forms}")
    unit = match[2]
    if value <= 0:
        raise UserError(f"{setting}: must be above 0; {forms}")
    if unit in ("", "%"):
        share = value / 100 if unit else value
        if share > 1:
            units = ", ".join(_UNITS[kind])
            # A number of a program has no unit: it takes text.
            example = _EXAMPLES[kind] if isinstance(written, str) else repr(_EXAMPLES[kind])
            raise UserError(
                f"{setting}: a share of the teacher's is at most 1 (100%); "
                f"an amount needs its unit ({units}), such as {example}"
            )
        return Amount(_rounded(share), relative=True)
    scale = {name.lower(): scale for name, scale in _UNITS[kind].items()}.get(unit.lower())
    if scale is None:
        units = ", ".join(_UNITS[kind])
        raise UserError(f"{setting}: '{unit}' is no unit of {kind} ({units}); {forms}")
    if not 0 < value * scale < math.inf:
        raise UserError(f"{setting}: is out of all range; {forms}")
    return Amount(_rounded(value * scale), relative=False)


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _rounded(value: float) -> float:
    """Without the last digits' noise: 33.3 / 100 is 0.333."""
    return float(_number(value))


def _number(value: float) -> str:
    return f"{value:.10g}"


def _text(amount: Amount, kind: str) -> str:
    if amount.relative:
        return _number(amount.value)
    unit = _unit(amount, kind)
    return f"{_number(amount.value / _UNITS[kind][unit])}{unit}"


def _unit(amount: Amount, kind: str) -> str:
    """That of the shortest way to write it, with a number of at least 1 where there is one.

    Rather one that needs no exponent, else that of the least.
    """

    def effort(unit: str) -> tuple[bool, float, int, int]:
        value = amount.value / _UNITS[kind][unit]
        number = _number(value)
        exponent = abs(math.log10(value)) if "e" in number else 0.0
        return value < 1, exponent, len(number), len(unit)

    return min(_UNITS[kind], key=effort)


def describe(amount: Amount, kind: str) -> str:
    """For a person: ``0.5 of the teacher's``, ``3.1G``."""
    return f"{_text(amount, kind)} of the teacher's" if amount.relative else _text(amount, kind)


def cost_text(limit: Amount, kind: str, value: float) -> str:
    """An absolute cost for a person, in the unit in which the limit is written where that fits."""
    if limit.relative:
        return figure(kind, value)
    unit = _unit(limit, kind)
    number = value / _UNITS[kind][unit]
    return (
        f"{significant(number)} {unit}"
        if LEGIBLE[0] <= number < LEGIBLE[1]
        else figure(kind, value)
    )


def beside_teacher(limit: Amount, kind: str, value: float, teacher: float) -> str:
    """A cost as the limit is written, as a share or in its unit, and the teacher's."""
    own = f"{value / teacher:.3g}" if limit.relative else cost_text(limit, kind, value)
    return f"{own} of the teacher's {cost_text(limit, kind, teacher)}"
