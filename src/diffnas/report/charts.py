"""Line and scatter charts as plain SVG: no script, sharp at any size, light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 480, 278
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 48
FEW = 300
"""Below so many small dots they are drawn larger."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named curve."""

    label: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A point that stands out; its label shows on hovering and in the legend."""

    label: str
    point: Point


@dataclass(frozen=True)
class Chart:
    """What to draw. The y axis is logarithmic: losses span decades.

    ``cloud``: small dots; ``level``: a labelled horizontal line.
    """

    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    cloud: Sequence[Point] = ()
    marks: Sequence[Mark] = ()
    level: tuple[float, str] | None = None


def draw(chart: Chart) -> str:
    """The chart as an ``<svg>`` with its legend, or an empty string if there is nothing to draw."""
    everything = [point for line in chart.lines for point in line.points]
    everything += [*chart.cloud, *(mark.point for mark in chart.marks)]
    shown = [point for point in everything if _drawable(point)]
    if not shown:
        return ""
    # Curves are over steps: they start at 0, however the first points were averaged.
    x_low, x_high = _range([x for x, _ in shown] + [0.0] * bool(chart.lines), log=False)
    y_values = [y for _, y in shown]
    if chart.level is not None and chart.level[0] > 0:
        y_values.append(chart.level[0])
    y_low, y_high = _range(y_values, log=True)

    def place(point: Point) -> Point:
        across = (point[0] - x_low) / (x_high - x_low)
        up = math.log(point[1] / y_low) / math.log(y_high / y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )

    parts = [*_x_axis(chart, x_low, x_high, place, y_low), *_y_axis(y_low, y_high, place, x_low)]
    if chart.cloud:
        dots = (place(point) for point in chart.cloud if _drawable(point))
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in dots)
        few = " few" if len(chart.cloud) < FEW else ""
        parts.append(f'<path class="cloud{few}" d="{path}"/>')
    if chart.level is not None and chart.level[0] > 0:
        _, y = place((x_low, chart.level[0]))
        parts.append(f'<path class="level" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT + 4}" y="{y - 5:.1f}">')
        parts.append(f"{escape(chart.level[1])}</text>")
    for line, colour in zip(chart.lines, palette(len(chart.lines)), strict=True):
        parts.append(_line(line, colour, place))
    for mark, colour in zip(chart.marks, palette(len(chart.marks)), strict=True):
        if _drawable(mark.point):
            x, y = place(mark.point)
            parts.append(
                f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}">'
                f"<title>{escape(mark.label)}</title></circle>"
            )
    title = escape(f"{chart.y_label} over {chart.x_label}", quote=True)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    return f"{svg}{''.join(parts)}</svg>{_legend(chart)}"


def palette(number: int) -> list[str]:
    """Colours told apart by most eyes (Okabe and Ito 2008); a ramp when there are many."""
    few = ["#0079bd", "#d55e00", "#009e73", "#b8589a", "#e69f00", "#4aa8dd", "#8a7000", "#7c7c7c"]
    if number <= len(few):
        return few[:number]
    return [f"hsl({220 + 180 * i / (number - 1):.0f} 60% 52%)" for i in range(number)]


def thinned(points: Sequence[Point], at_most: int = 160) -> list[Point]:
    """Means over equal stretches of a long noisy curve."""
    if len(points) <= at_most:
        return list(points)
    edges = [round(i * len(points) / at_most) for i in range(at_most + 1)]
    pieces = [points[a:b] for a, b in pairwise(edges)]
    return [
        (sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece))
        for piece in pieces
    ]


def _drawable(point: Point) -> bool:
    return all(math.isfinite(value) for value in point) and point[1] > 0


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.15, high * 1.15
        return (low, high) if high / low > 1.5 else (low / 1.3, high * 1.3)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(line: Line, colour: str, place: Callable[[Point], Point]) -> str:
    points = [place(point) for point in line.points if _drawable(point)]
    if not points:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    width = ' stroke-width="1.8"'
    if len(points) == 1:
        path, dashes, width = f"{path}h0", "", ' stroke-width="6" stroke-linecap="round"'
    return (
        f'<path class="line" d="{path}" stroke="{colour}"{width}{dashes}>'
        f"<title>{escape(line.label)}</title></path>"
    )


def _x_axis(
    chart: Chart, low: float, high: float, place: Callable[[Point], Point], y_low: float
) -> list[str]:
    parts = [f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']
    for tick in _even_ticks(low, high):
        x, y = place((tick, y_low))
        parts.append(f'<text x="{x:.1f}" y="{y + 19:.1f}" class="middle">{_number(tick)}</text>')
    below = HEIGHT - 6
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{below}" class="end">{escape(chart.x_label)}</text>'
    )
    parts.append(f'<text x="0" y="14">{escape(chart.y_label)}</text>')
    return parts


def _y_axis(low: float, high: float, place: Callable[[Point], Point], x_low: float) -> list[str]:
    parts = []
    for tick in _decade_ticks(low, high):
        _, y = place((x_low, tick))
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{_number(tick)}</text>')
    return parts


def _even_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decade_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    leading = (1,) if span > 3.2 else (1, 3) if span > 1.2 else (1, 1.5, 2, 3, 5, 7)
    ticks = [lead * 10.0**decade for decade in decades for lead in leading]
    every = max(1, round(span / 6)) if span > 3.2 else 1
    return [tick for tick in ticks if low <= tick <= high][::every]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def _legend(chart: Chart) -> str:
    named: list[Line | Mark] = [*chart.lines, *chart.marks]
    if len(named) < 2:
        return ""
    colours = palette(len(chart.lines)) + palette(len(chart.marks))
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(item.label)}</li>'
        for item, colour in zip(named, colours, strict=True)
    )
    return f'<ul class="legend">{items}</ul>'
