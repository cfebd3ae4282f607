"""``diffnas report``: the page again."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Write RUN/report.html again from what lies in RUN."""
    from diffnas.report import write_report

    print(write_report(run))
