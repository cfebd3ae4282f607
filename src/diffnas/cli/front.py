"""``diffnas front``: what every budget would give."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diffnas.cli import options
from diffnas.cli.output import print_json, print_table
from diffnas.figures import count, significant
from diffnas.settings import DEFAULT_RULE


def front(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with scores.")],
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="Cost of the budgets: macs or params.")
    ] = "macs",
    rule: Annotated[str, typer.Option(metavar="NAME", help="Selection rule.")] = DEFAULT_RULE,
    points: Annotated[str, typer.Option(metavar="N", help="How many budgets.")] = "20",
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
) -> None:
    """Show what each budget would choose in a run: cost and errors. No training.

    Errors are what selection went by (of each block, at the output or its block loss), before
    retraining, summed, over those of the teacher's options: they rank, they promise nothing.
    """
    number = options.whole_number("--points", points)
    from diffnas.pareto import front as make_front
    from diffnas.report.table import plain_table

    found = make_front(run, metric=metric, rule=rule, points=number)
    if as_json:
        print_json({"metric": metric, "rule": rule, "points": [asdict(point) for point in found]})
        return
    columns = ("MACs", "share", "parameters", "share", "trunk", "errors", "worst block")
    table = plain_table(None, columns)
    for point in found:
        table.add_row(
            count(point.cost.macs),
            f"{point.macs:.3f}",
            count(point.cost.params),
            f"{point.params:.3f}",
            f"{point.trunk:.3g}",
            significant(point.loss),
            significant(point.worst),
        )
    print_table(table)
    print()
    print(f"{len(found)} architectures by rule {rule}; errors are over the teacher's own")
