"""``diffnas compress``: the main job."""

from pathlib import Path
from typing import Annotated, Any

import typer

from diffnas.alone import alone_in, check_folder
from diffnas.budget import Budget, check_alone, parse_budget
from diffnas.cli import options
from diffnas.cli.output import print_table
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.errors import UserError
from diffnas.names import STAGES, folder_name
from diffnas.report.table import closing_table
from diffnas.select import check_tolerance
from diffnas.settings import Settings


def compress(
    model: options.Model,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A folder of images, a Hub data set id, 'digits', or 'teacher': its own samples.",
            show_default="'digits' for the model 'digits'",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder.", show_default="runs/MODEL")
    ] = None,
    macs: options.Macs = None,
    params: options.Params = None,
    latency: options.Latency = None,
    memory: options.Memory = None,
    tolerance: options.Tolerance = None,
    smallest: options.Smallest = False,
    until: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help=f"Stop after this stage: {', '.join(STAGES)}."),
    ] = None,
    space: options.SpaceName = None,
    rule: options.Rule = None,
    settings_file: options.SettingsFile = None,
    assignments: options.Assignments = None,
    max_steps: options.MaxSteps = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = None,
    device: options.Device = None,
    seed: options.Seed = None,
    revision: options.Revision = None,
    variant: options.Variant = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Make a smaller diffusion model at par with MODEL, using images like those it was trained on.

    The same command goes on where it stopped; with other budgets it makes a further student.
    """
    limits = {
        "macs": macs, "params": params, "latency": latency, "memory": memory, "tolerance": tolerance
    }  # fmt: skip
    if smallest:
        check_alone("--smallest", {**limits, "until": until})
    settings = options.read_settings(
        settings_file,
        assignments,
        options.training_flags(
            space=space,
            rule=rule,
            max_steps=max_steps,
            batch_size=batch_size,
            precision=precision,
            device=device,
            seed=seed,
        ),
    )
    budget = None if smallest else parse_budget(**limits)
    if budget is not None:
        check_tolerance(budget, settings.select.rule)
    if until is not None:
        options.check_choice("--until", until, STAGES)
    if data is None:
        if model != "digits":
            raise UserError(
                "--data: missing; give a folder of images or a Hub data set id, or else 'teacher'"
            )
        data = "digits"
    run_and_show(
        model,
        data,
        out or Path("runs") / folder_name(model),
        budget,
        settings,
        until=until,
        revision=revision,
        variant=variant,
        trust_remote_code=trust_remote_code,
    )


def run_and_show(
    model: str, data: str, out: Path, budget: Budget | None, settings: Settings, **further: Any
) -> None:
    """Run the stages with progress on stderr, then print the closing table and where things are.

    Without a budget: the smallest student at par.
    """
    out = out.expanduser()  # shells leave the ~ of --out=~/runs
    check_folder("--out", out)
    # Only now: usage errors must not wait for torch.
    from diffnas.device import resolve_device

    resolve_device(settings.device)
    hush_diffusers()
    from diffnas.run import compress as compress_
    from diffnas.smallest import compress_smallest

    with alone_in(out), show_progress() as progress:
        given = {"data": data, "out": out, "settings": settings, "progress": progress, **further}
        if budget is None:
            run = compress_smallest(model, **given)
        else:
            run = compress_(model, budget=budget, **given)
    last = further.get("until") or STAGES[-1]
    if STAGES.index(last) < STAGES.index("metrics"):
        print(f"run {run.path}")
        return
    student = run.students[run.name]
    print_table(closing_table(student.metrics(), title=run.name))
    print(f"\npipeline  {student.path / 'pipeline'}")
    print(f"samples   {student.path / 'samples.png'}")
    if last == "report":
        print(f"report    {run.path / 'report.html'}")
