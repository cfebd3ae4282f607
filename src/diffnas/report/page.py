"""The page of a run: one self-contained HTML file, readable without a network or a script."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import yaml

from diffnas.figures import count, duration, significant, size
from diffnas.report.curves import retrain_curves, scatter, supernet_curves
from diffnas.report.files import RunFiles, StudentFiles
from diffnas.report.table import (
    COSTS,
    closing_rows,
    mean,
    ratio_text,
)
from diffnas.report.words import measured_apart, trial, unmeasured, verdict, words

WORST = "largest error over a block's benchmark"
FIGURE_OF = {
    "local": "tolerance",
    "local-ratio": "share of each block's cost",
    **dict.fromkeys(("global-exact", "global-evolution", "random"), WORST),
}
"""What a rule's own figure is."""


def page(run: RunFiles) -> str:
    """The whole page."""
    style = files("diffnas.report").joinpath("style.css").read_text(encoding="utf-8")
    title = f"DiffNAS: {escape(run.name)}"
    verdicts = [verdict(s.name, s.architecture, s.metrics) for s in run.students]
    lead = "".join(f'<p class="lead">{escape(line)}</p>' for line in verdicts)
    lead += paragraph(measured_apart(each.metrics for each in run.students))
    sections = [student(run, files_) for files_ in run.students]
    sections += [supernet_curves(run.supernet), scatter(run), space(run.plan), settings(run)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main>"
        f'<p class="kind">DiffNAS run</p><h1>{escape(run.name)}</h1>'
        f"{lead or '<p>No student yet: the run stopped before one was selected.</p>'}"
        f"{''.join(sections)}</main></body></html>\n"
    )


def student(run: RunFiles, files_: StudentFiles) -> str:
    """All about one student: costs and quality, samples, choices, curve, protocol."""
    made = files_.made.get("settings", {})
    parts = [f"<h2>{escape(files_.name)}</h2>", paragraph(trial(files_.made))]
    if files_.metrics:
        parts.append(closing(files_.metrics))
    if files_.samples:
        parts += ["<h3>Samples from the same seeds</h3>", samples(files_.samples)]
    if files_.architecture:
        parts.append(choices(files_.architecture))
    parts.append(retrain_curves(run.retrain.get(files_.name, [])))
    if files_.metrics:
        parts.append(protocol(files_.metrics))
    if made:
        parts.append(folded("settings of its retraining", made))
    return "".join(parts)


def closing(metrics: Mapping[str, Any]) -> str:
    """The closing table, each cost's ratio with a bar."""
    rows = []
    for row in closing_rows(metrics):
        cells = "".join(
            f"<td{' class=missing' if text == 'not measured' else ''}>{escape(text)}</td>"
            for text in (row.teacher, row.student)
        )
        share = bar(row.ratio) if row.key in COSTS else ""
        rows.append(f"<tr><td>{escape(row.label)}</td>{cells}<td>{row.ratio}{share}</td></tr>")
    return (
        '<div class="scroll"><table><thead><tr><th></th><th>teacher</th><th>student</th>'
        f"<th>ratio</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="soft">Costs are of one denoiser call at batch 1; less is better. So it is of '
        "distances and losses, but for the distance to the nearest seen image: much below the "
        "teacher's would mean copies.</p>"
    )


def bar(ratio: str) -> str:
    """A share as a bar, full at 1."""
    if not ratio:
        return ""
    return f'<span class="bar"><i style="width:{min(100 * float(ratio), 100):.0f}%"></i></span>'


def samples(png: bytes) -> str:
    """The image, inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img class="samples" alt="Samples of teacher and '
        f'student from the same seeds" src="data:image/png;base64,{data}">'
        "<figcaption>Teacher first, student second; the same noise for both.</figcaption></figure>"
    )


def choices(architecture: Mapping[str, Any]) -> str:
    """Each block's chosen options among those there were, with block loss and benchmark."""
    there_were = architecture.get("options", {})
    items = []
    for name, chosen in architecture.get("blocks", {}).items():
        slots = there_were.get(name, {})
        options = "".join(
            f"<dt>{escape(path or name)}</dt><dd>{strip(slots.get(path, []), option)}</dd>"
            for path, option in chosen.items()
        )
        facts = block_facts(architecture.get("losses", {}).get(name, {}))
        items.append(
            f"<details><summary><b>{escape(name)}</b><span>{facts}</span></summary>"
            f'<dl class="slots">{options}</dl></details>'
        )
    rule = escape(str(architecture.get("rule", "")))
    tolerance = mean(architecture.get("tolerance"))
    figure = FIGURE_OF.get(rule, "its figure")
    how = f"Rule: {rule}" + (f", {figure} {significant(tolerance)}" if tolerance else "")
    kept, of = architecture.get("trunk") or (1, 1)
    trunk = (
        f"Streams between layers keep {kept} of {of} norm groups; shares are of what that leaves "
        "of a block. "
        if kept < of
        else ""
    )
    return (
        f"<h3>What each block became</h3><p>{how}. {trunk}The benchmark is the error or loss of "
        "the subnet made of the teacher's own options, in the same supernet. Open a block to see "
        f"its options; the marked one was chosen.</p>{''.join(items)}"
    )


def strip(options: Sequence[Any], chosen: str) -> str:
    """All options of a slot, the chosen one marked."""
    names = [str(option) for option in options]
    return "".join(
        f'<span class="option{" chosen" if name == chosen else ""}">{escape(name)}</span>'
        for name in (names if chosen in names else [chosen])
    )


def block_facts(losses: Mapping[str, Any]) -> str:
    """One block's MACs kept; its error at the output and its loss, and both over benchmarks."""
    kept = ratio_text(losses.get("macs"), losses.get("teacher_macs"))
    parts = []
    if kept:
        parts.append(f"{kept} of {count(losses['teacher_macs'])} MACs")
    for key, benchmark_key, name in (
        ("output_error", "output_benchmark", "error at the output"),
        ("loss", "benchmark", "loss"),
    ):
        value, benchmark = mean(losses.get(key)), mean(losses.get(benchmark_key))
        if value is not None:
            parts.append(f"{name} {significant(value)}")
        if value is not None and benchmark:
            times = significant(value / benchmark)
            parts.append(f"{times} times its benchmark {significant(benchmark)}")
    return f'<span class="facts">{", ".join(parts)}</span>{bar(kept)}'


def protocol(metrics: Mapping[str, Any]) -> str:
    """How it was measured, how long things took, and what is not known."""
    facts = {key: words(value) for key, value in metrics.get("protocol", {}).items()}
    seconds = metrics.get("seconds", {})
    facts |= {f"time, {stage}": duration(value) for stage, value in seconds.items()}
    items = "".join(f"<li>{escape(line)}</li>" for line in unmeasured(metrics))
    return (
        "<h3>Protocol, the same for teacher and student</h3>"
        f"{facts_list(facts)}<h3>What was not measured</h3><ul>{items}</ul>"
    )


def space(plan: Mapping[str, Any]) -> str:
    """Bounds of the space and what was left as it is."""
    if not plan:
        return ""
    facts = {}
    teacher = plan.get("teacher", {})
    for name in ("largest", "smallest"):
        costs = plan.get(name, {})
        if costs and teacher:
            macs = ratio_text(costs.get("macs"), teacher.get("macs"))
            params = ratio_text(costs.get("params"), teacher.get("params"))
            facts[name] = f"{macs} of the MACs, {params} of the parameters"
    if isinstance(plan.get("subnets"), int):
        facts["architectures"] = size(plan["subnets"])
    left = "".join(f"<li>{escape(str(line))}</li>" for line in plan.get("left", []))
    kept = f"<p>Left as they are:</p><ul>{left}</ul>" if left else ""
    return f"<h2>Search space</h2>{facts_list(facts)}{kept}"


def settings(run: RunFiles) -> str:
    """The settings of the run and why defaults are what they are."""
    reasons = {key: words(value) for key, value in run.plan.get("reasons", {}).items()}
    if not run.settings and not reasons:
        return ""
    return (
        f"<h2>Settings of the last command</h2>{facts_list(reasons)}"
        f"{folded('settings.yaml', run.settings)}"
    )


def paragraph(text: str) -> str:
    """The text, if there is any."""
    return f"<p>{escape(text)}</p>" if text else ""


def folded(title: str, values: Any) -> str:
    """Values as YAML, shown when opened."""
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return f"<details><summary><b>{title}</b></summary><pre>{escape(text)}</pre></details>"


def facts_list(facts: Mapping[str, str]) -> str:
    """Names and values."""
    pairs = "".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(text)}</dd>"
        for name, text in facts.items()
    )
    return f'<dl class="facts-list">{pairs}</dl>' if pairs else ""
