"""``diffnas evaluate``: any pipelines, side by side, under one protocol."""

from typing import Annotated

import typer

from diffnas.cli import options
from diffnas.cli.output import print_json, print_result, print_table
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.errors import UserError
from diffnas.report.table import side_by_side


def evaluate(
    pipelines: Annotated[
        list[str],
        typer.Argument(metavar="PIPELINE...", help="diffusers pipeline folders or Hub ids."),
    ],
    *,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="A folder of images, a Hub data set id, or 'digits'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
    settings_file: options.SettingsFile = None,
    assignments: options.Assignments = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    seed: options.Seed = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Measure cost and quality of pipelines with the same sampler, steps, seeds and images."""
    settings = options.read_settings(
        settings_file,
        assignments,
        {
            "--batch-size": (batch_size, ("evaluate.batch_size",)),
            "--device": (device, ("device",)),
            "--seed": (seed, ("seed",)),
        },
    )
    if data is None:
        raise UserError("--data: missing; give a folder of images, a Hub data set id or digits")
