"""``diffnas report``: the page again."""

from pathlib import Path
from typing import Annotated

import typer

from diffnas.cli.output import print_result


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Write RUN/report.html again from what lies in RUN."""
    from diffnas.report import write_report

    print_result(str(write_report(run)))
