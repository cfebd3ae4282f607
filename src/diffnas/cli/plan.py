"""``diffnas plan``: what a compression would be, without training."""

from typing import Annotated, Any

import typer
from rich.table import Table

from diffnas.budget import Amount, cost_text, describe, parse_budget
from diffnas.cli import options
from diffnas.cli.output import print_json, print_table
from diffnas.cli.quiet import hush_diffusers
from diffnas.figures import count, duration, figure, size
from diffnas.report.table import plain_table, ratio_text
from diffnas.select import check_tolerance


def plan(
    model: options.Model,
    *,
    macs: options.Macs = None,
    params: options.Params = None,
    latency: options.Latency = None,
    memory: options.Memory = None,
    tolerance: options.Tolerance = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="N", help="Images to be trained on, held-out ones not among them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
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
    trust_remote_code: options.TrustRemoteCode = False,  # of no use: compress's flags are taken
) -> None:
    """Show blocks, options, reachable costs, hours and memory of compressing MODEL. No training.

    A folder with model_index.json and the config.json of denoiser and autoencoder is enough; so is
    the config.json of a denoiser alone.
    """
    budget = parse_budget(
        macs=macs, params=params, latency=latency, memory=memory, tolerance=tolerance
    )
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
    check_tolerance(budget, settings.select.rule)
    image_count = None if images is None else options.whole_number("--images", images)
    # Only now: usage errors must not wait for torch.
    from diffnas.device import resolve_device

    resolve_device(settings.device)
    hush_diffusers()
    from diffnas.plan import make_plan

    made = make_plan(
        model,
        budget,
        settings,
        images=image_count,
        revision=revision,
        variant=variant,
    )
    if as_json:
        print_json(made)
        return
    for index, table in enumerate((cost_table(made), block_table(made))):
        several = "" if made["subnets"] == 1 else "s"
        print("" if index else f"{model}: {size(made['subnets'])} architecture{several}")
        print_table(table)
    for line in remarks(made, budget.limits()):
        print(line)


def cost_table(made: dict[str, Any]) -> Table:
    """Teacher, largest and smallest student, with shares of the teacher's."""
    table = plain_table(None, ("", "parameters", "MACs", "MACs without attention products"))
    for name in ("teacher", "largest", "smallest"):
        cells = []
        for key in ("params", "macs", "macs_without_attention"):
            value, teacher = made[name][key], made["teacher"][key]
            share = f" ({value / teacher:.2f})" if teacher and name != "teacher" else ""
            cells.append(f"{count(value)}{share}")
        table.add_row(name, *cells)
    return table


def block_table(made: dict[str, Any]) -> Table:
    """Each block: its share of the MACs, its subnets, its slots with their options."""
    table = plain_table(None, ("block", "share of MACs", "subnets", "slot", "options"))
    for column in table.columns[3:]:
        column.justify = "left"
    for block in made["blocks"]:
        head = [block["name"], f"{100 * block['share_macs']:.1f} %", size(block["subnets"])]
        for slot in block["slots"] or [{"path": "", "options": ["left as it is"]}]:
            options_text = "  ".join(str(option) for option in slot["options"])
            table.add_row(*head, slot["path"] or block["name"], options_text)  # or it is the block
            head = ["", "", ""]
    return table


def remarks(made: dict[str, Any], limits: dict[str, Amount]) -> list[str]:
    """Budgets, notes, modules left as they are, hours, memory, settings with their reasons."""
    lines = [""]
    for kind, limit in limits.items():
        asked, found = f"--{kind} {describe(limit, kind)}", made["budget"].get(kind)
        if found is None:
            lines.append(f"{asked}: known only once measured, by compress")
            continue
        verdict = "within reach" if found["reachable"] else "out of reach"
        smallest = cost_text(limit, kind, found["smallest"])
        share = ratio_text(found["smallest"], found["teacher"])
        lines.append(f"{asked}: {verdict}; the smallest is {smallest} ({share})")
    lines += [f"note: {line}" for line in made.get("notes", [])]
    lines += [f"left as it is: {line}" for line in made.get("left", [])]
    hours = made.get("hours", {})
    if hours:
        parts = [f"{stage} {duration(3600 * value)}" for stage, value in hours.items()]
        lines.append(f"expected time: {', '.join(parts)}")
    memory = made.get("memory_bytes", {})
    if memory:
        parts = [
            f"{stage} {'unknown' if value is None else figure('memory', value)}"
            for stage, value in memory.items()
        ]
        lines.append(f"expected memory: {', '.join(parts)}")
    lines += [f"{name}: {reason}" for name, reason in made.get("reasons", {}).items()]
    return lines
