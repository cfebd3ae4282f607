"""What the page draws of a run: losses over steps, and each block's subnets."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from diffnas.report.charts import Chart, Line, Mark, draw, thinned
from diffnas.report.files import BlockTable, RunFiles, StudentFiles
from diffnas.report.table import mean

CLOUD = 1200
"""Dots drawn of a block's subnets, evenly spread over the table, so that the page stays small."""


def retrain_curves(records: Sequence[Mapping[str, Any]]) -> str:
    """Losses over the steps of retraining."""
    names = {
        "loss": "joint loss",
        "blocks": "block losses, summed",
        "task": "prediction loss",
        "output": "distance to the teacher's prediction",
    }
    lines = [Line(label, curve(records, key), key != "loss") for key, label in names.items()]
    chart = draw(Chart("step", "loss", [line for line in lines if line.points]))
    if not chart:
        return ""
    return f'<h3>Retraining</h3><div class="charts"><figure>{chart}</figure></div>'


def supernet_curves(records: Sequence[Mapping[str, Any]]) -> str:
    """Block losses over the steps of supernet training."""
    names = list(dict.fromkeys(name for record in records for name in record["blocks"]))
    by_block = [(name, [(r["step"], r["blocks"].get(name)) for r in records]) for name in names]
    lines = [
        Line(name, thinned([(step, loss) for step, loss in points if mean(loss) is not None]))
        for name, points in by_block
    ]
    chart = draw(Chart("step", "block loss", lines))
    if not chart:
        return ""
    return (
        "<h2>Supernet training</h2><p>Each block learns to imitate the teacher's with whatever "
        f'options are drawn.</p><div class="charts"><figure>{chart}</figure></div>'
    )


def curve(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """One figure over the steps, thinned."""
    points = [(record["step"], mean(record.get(key))) for record in records]
    return thinned([(step, value) for step, value in points if value is not None])


def scatter(run: RunFiles) -> str:
    """Each block's subnets: share of its MACs against its loss, with those chosen from them."""
    # A student that was chosen from an earlier table has no place on this one.
    chosen = [each for each in run.students if each.architecture.get("scores", "") == run.scored]
    figures = [
        f"<figure>{chart}<figcaption>{escape(name)}, {len(table.losses)} subnets</figcaption>"
        "</figure>"
        for name, table in run.scores.items()
        if (chart := block_scatter(name, table, chosen))
    ]
    if not figures:
        return ""
    return (
        "<h2>Score table</h2><p>Every dot is a subnet of the block; the line is the benchmark, "
        f'large dots were chosen.</p><div class="charts small">{"".join(figures)}</div>'
    )


def block_scatter(name: str, table: BlockTable, students: Sequence[StudentFiles]) -> str:
    """One block's chart; row 0 of the table is the teacher's own subnet."""
    if not len(table.macs) or table.macs[0] <= 0:
        return ""
    every = max(1, len(table.macs) // CLOUD)
    shares = table.macs / table.macs[0]
    marks = []
    for files_ in students:
        losses = files_.architecture.get("losses", {}).get(name, {})
        macs, loss = mean(losses.get("macs")), mean(losses.get("loss"))
        if macs is not None and loss is not None:
            marks.append(Mark(files_.name, (macs / float(table.macs[0]), loss)))
    cloud = list(zip(shares[::every].tolist(), table.losses[::every].tolist(), strict=True))
    benchmark = (float(table.losses[0]), "benchmark")
    return draw(Chart("share of the block's MACs", "loss", (), cloud, marks, benchmark))
