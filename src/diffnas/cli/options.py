"""What several verbs take, and how flags become settings. Needs no torch."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from diffnas import settings as all_settings
from diffnas.device import check_device_name
from diffnas.errors import UserError
from diffnas.select import check_rule

BUDGETS = "Budgets (all given must hold; none given: --macs 0.5)"
SETTINGS = "Settings"
MODEL = "Loading the model"

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A diffusers pipeline folder, a Hub id, or 'digits'.")
]
Macs = Annotated[
    str | None,
    typer.Option(metavar="R", help="0.5, 50% or 3.1G of one call's MACs.", rich_help_panel=BUDGETS),
]
Params = Annotated[
    str | None,
    typer.Option(metavar="R", help="0.5, 50% or 20M parameters.", rich_help_panel=BUDGETS),
]
Latency = Annotated[
    str | None,
    typer.Option(metavar="R", help="0.5, 50% or 12ms for one call.", rich_help_panel=BUDGETS),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="R", help="0.5, 50% or 2GiB for one call.", rich_help_panel=BUDGETS),
]
Tolerance = Annotated[
    str | None,
    typer.Option(
        metavar="S",
        help="Instead of budgets: each block's error may be up to S times that of the "
        "teacher's own options.",
        rich_help_panel=BUDGETS,
    ),
]
Smallest = Annotated[
    bool,
    typer.Option(
        "--smallest",
        help="Instead of budgets: fewer MACs until quality after retraining no longer holds.",
        rich_help_panel=BUDGETS,
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        "--space",
        metavar="NAME",
        help="Search space: full, paper or stock.",
        rich_help_panel=SETTINGS,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Selection rule: global-exact, global-evolution, local, local-ratio or random.",
        rich_help_panel=SETTINGS,
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE.yaml",
        help="A file of settings, by section.",
        rich_help_panel=SETTINGS,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, e.g. score.images=64; wins over the file; repeatable.",
        rich_help_panel=SETTINGS,
    ),
]
MaxSteps = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Cap on the steps of either training.", rich_help_panel=SETTINGS
    ),
]
BatchSize = Annotated[
    str | None,
    typer.Option(metavar="N", help="Batch size of both trainings.", rich_help_panel=SETTINGS),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="fp32, bf16 or fp16.", rich_help_panel=SETTINGS),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=SETTINGS),
]
Seed = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Randomness of both trainings; samples have evaluate.seeds.",
        rich_help_panel=SETTINGS,
    ),
]
SamplingSeed = Annotated[
    str | None,
    typer.Option(metavar="N", help="Randomness of the samples.", rich_help_panel=SETTINGS),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="R", help="Branch, tag or commit on the Hub.", rich_help_panel=MODEL),
]
Variant = Annotated[
    str | None, typer.Option(metavar="V", help="Weights variant, e.g. fp16.", rich_help_panel=MODEL)
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the model.",
        rich_help_panel=MODEL,
    ),
]


def read_settings(
    file: Path | None,
    assignments: Sequence[str] | None,
    flags: dict[str, tuple[str | None, Sequence[str]]],
) -> all_settings.Settings:
    """Settings from the file, then ``--set``, then flags, each winning over those before.

    ``flags``: flag -> (its value or None, the settings it sets, e.g. ``seed`` or, where the value
    is but a part of one, ``evaluate.seeds=[{}]``).

    Raises:
        UserError: naming the file, the setting or the flag with its value and the remedy.
    """
    from_flags = []
    for flag, (value, keys) in flags.items():
        if value is None:
            continue
        own = [key.format(value) if "=" in key else f"{key}={value}" for key in keys]
        try:
            all_settings.load(None, tuple(own))
        except UserError as error:
            reason = str(error).split(": ", 1)[-1]
            raise UserError(f"{flag} {value}: {reason}") from None
        from_flags += own
    settings = all_settings.load(file, (*(assignments or ()), *from_flags))
    check_device_name(settings.device)
    check_rule(settings.select.rule)
    return settings


def training_flags(
    *,
    space: str | None,
    rule: str | None,
    max_steps: str | None,
    batch_size: str | None,
    precision: str | None,
    device: str | None,
    seed: str | None,
) -> dict[str, tuple[str | None, Sequence[str]]]:
    """Which settings the flags of ``compress`` and ``plan`` set."""
    return {
        "--space": (space, ("space.preset",)),
        "--rule": (rule, ("select.rule",)),
        "--max-steps": (max_steps, ("max_steps",)),
        "--batch-size": (batch_size, ("supernet.batch_size", "retrain.batch_size")),
        "--precision": (precision, ("precision",)),
        "--device": (device, ("device",)),
        "--seed": (seed, ("seed",)),
    }


def whole_number(flag: str, text: str) -> int:
    """The number of a flag that no setting stands behind.

    Raises:
        UserError: not a whole number above 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{flag} {text}: must be a whole number above 0")
    return int(text)


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is none of the known ones, suggesting the nearest.

    Raises:
        UserError: naming flag, value and what would do.
    """
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(known)}"
        raise UserError(f"{flag} {value}: unknown; {hint}")


def check_file(flag: str, file: Path, ending: str) -> None:
    """Refuse, before the work, a file that cannot be written; makes nothing.

    Raises:
        UserError: another ending, a folder of that name, or a missing or unwritable parent.
    """
    if file.suffix.lower() != ending:
        raise UserError(f"{flag} {file}: must end in {ending}")
    if file.is_dir():
        raise UserError(f"{flag} {file}: is a folder; name a file in it")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {file}: there is no folder {file.parent}; make it or name another")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {file}: {file.parent} is not writable; choose another folder")
