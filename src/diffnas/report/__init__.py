"""What a run leaves for people: the closing table and the page."""

from pathlib import Path

from diffnas.report.files import read_run
from diffnas.report.page import page


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from what lies in the run folder and return its path.

    Raises:
        UserError: no run folder, or a file in it that is broken or of a newer format.
        RunError: the disk is full.
    """
    # Only now: the closing table is wanted without torch.
    from diffnas.checkpoint import write_text

    path = run / "report.html"
    write_text(path, page(read_run(run)))
    return path
