"""What a run leaves for people: the closing table and the page."""

import os
from pathlib import Path

from diffnas.report.files import read_run
from diffnas.report.page import page


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from what lies in the run folder and return its path.

    Raises:
        UserError: no run folder, or a file in it that is broken or of a newer format.
    """
    text = page(read_run(run))
    path = run / "report.html"
    unfinished = run / "report.html.tmp"
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
