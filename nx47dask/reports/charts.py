"""Charts of a calibration as SVG in the colours of the page: lines and points on two axes, and bars in parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from nx47dask.reports.markup import Html, joined, text
from nx47dask.words import percent

__all__ = ["Axis", "Series", "bars", "chart", "choice_axis", "figure", "linear_axis", "log_axis"]

WIDTH, PLOT_HEIGHT = 372, 150
LEFT, RIGHT = 46, 18
LEGEND_ROW, BAR_ROW, BAR_HEIGHT = 16, 29, 10
LETTER = 5.9
"""Mean width of a letter of the page's 11 px type, for the places of a legend."""
INTERVALS = 5
"""Between the ticks of an axis, about."""
DOTTED = 12
"""A line of up to so many points shows each."""
LINES = {"line": ("accent", ""), "second": ("good", "6 3"), "third": ("ink", "2 2"), "fourth": ("behind", "8 3 2 3")}
"""Colour of the page and dashes, so that lines can be told apart without colour."""
MARKS = {"here": "accent", "before": "behind", "knee": "good"}


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes
    ----------
    name : str
    low, high : float
        Its ends; of a logarithmic axis above 0.
    ticks : sequence of (float, str)
        Values with a label.
    percent : bool
        Whether values are shares, shown in per cent.
    log : bool
    """

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    percent: bool = False
    log: bool = False

    def share(self, value: float) -> float:
        """Where on the axis a value is, from 0 to 1."""
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return (at - low) / (high - low)

    def shown(self, value: float) -> str:
        """A value in words."""
        if self.percent:
            return percent(value)
        return dict(self.ticks).get(value, f"{value:,.4g}")


@dataclass(frozen=True)
class Series:
    """Points of a chart.

    Attributes
    ----------
    name : str
    points : sequence of (float, float)
        In the order in which a line joins them.
    look : str
        A line (``line``, ``second``, ``third``, ``fourth``) or single marks (``here``, ``before``, ``knee``).
    """

    name: str
    points: Sequence[tuple[float, float]]
    look: str = "line"


def linear_axis(name: str, values: Iterable[float], *, percent: bool = False) -> Axis:
    """An axis around values, at least one, with ticks at round numbers."""
    every = list(values)
    low, high = min(every), max(every)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        margin = max(abs(low) / 10, 0.01)
        low, high = low - margin, high + margin
    step = _round_step((high - low) / INTERVALS)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) - 2 * percent)
    steps = range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    # Adding 0 makes of -0.0, which would be shown as such, 0.0.
    ticks = [
        (k * step, f"{100 * k * step + 0:.{digits}f} %" if percent else f"{k * step + 0:,.{digits}f}") for k in steps
    ]
    return Axis(name, steps[0] * step, steps[-1] * step, ticks, percent)


def log_axis(name: str, values: Iterable[float]) -> Axis:
    """A logarithmic axis around values above 0, at least one, with ticks at 1, 2 and 5 of each power of ten."""
    every = list(values)
    low, high = min(every), max(every)
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    decades = [value for value in within if math.log10(value).is_integer()]
    return Axis(name, low, high, [(one, f"{one:,.10g}") for one in (decades if len(decades) > 1 else within)], log=True)


def choice_axis(name: str, labels: Sequence[str]) -> Axis:
    """An axis of choices at 0, 1, 2, ..."""
    return Axis(name, -0.5, len(labels) - 0.5, list(enumerate(labels)))


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Html:
    """Draw lines and points on two axes.

    Parameters
    ----------
    title : str
        What it is, for readers who do not see it; values are added to it.
    x, y : Axis
    series : sequence of Series
        Drawn and listed in this order; those without points are left out.
    """
    drawn = [one for one in series if one.points]
    legend, rows = _legend([(one.name, _sample(one.look)) for one in drawn])
    top = rows * LEGEND_ROW + 24
    bottom, right = top + PLOT_HEIGHT, WIDTH - RIGHT

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + (right - LEFT) * x.share(point[0]), bottom - PLOT_HEIGHT * y.share(point[1])

    parts = [legend, f'<text x="0" y="{top - 11}">{text(y.name)}</text>']
    for value, label in y.ticks:
        height = place((x.low, value))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{text(label)}</text>')
    for value, label in x.ticks:
        along = place((value, y.low))[0]
        parts.append(f'<line class="grid" x1="{along:.1f}" x2="{along:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{along:.1f}" y="{bottom + 15}" text-anchor="middle">{text(label)}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 30}" text-anchor="end">{text(x.name)}</text>')
    parts += [_drawn([place(point) for point in one.points], one.look) for one in drawn]
    words = "; ".join(_in_words(one, x, y) for one in drawn)
    return _svg(f"{title}: {words or 'no values'}", bottom + 35, parts)


def bars(title: str, parts: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str, Sequence[float]]]) -> Html:
    """Draw shares of a whole as bars in parts.

    Parameters
    ----------
    title : str
        What it is, for readers who do not see it; values are added to it.
    parts : sequence of (str, str)
        Name and colour of the page (``accent``, ``good``, ``bad``, ``behind``, ``bar``) of each part.
    rows : sequence of (str, str, sequence of float)
        Name of each bar, what stands at its end, and its parts: shares that add up to at most 1.
    """
    legend, lines = _legend([(name, _block(0, 3, 14, colour)) for name, colour in parts])
    top, marks, words = lines * LEGEND_ROW + 4, [legend], []
    for name, amount, shares in rows:
        marks.append(f'<text x="0" y="{top + 11}">{text(name)}</text>')
        marks.append(f'<text x="{WIDTH}" y="{top + 11}" text-anchor="end">{text(amount)}</text>')
        marks.append(_block(0, top + 15, WIDTH, "band"))
        begin = 0.0
        for share, (_, colour) in zip(shares, parts, strict=True):
            marks.append(_block(begin, top + 15, WIDTH * share, colour))
            begin += WIDTH * share
        named = zip(parts, shares, strict=True)
        words.append(f"{name} {', '.join(f'{part} {percent(share)}' for (part, _), share in named)}")
        top += BAR_ROW
    return _svg(f"{title}: {'; '.join(words)}", top + 2, marks)


def figure(name: str, about: str, drawing: Html) -> Html:
    """A drawing with its caption."""
    caption = f'<figcaption style="min-height:0"><b>{text(name)}</b> {text(about)}</figcaption>'
    return Html(f"<figure>{caption}{drawing}</figure>")


def _svg(title: str, height: float, parts: Iterable[str]) -> Html:
    name = escape(title, quote=True)
    return Html(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{name}">{joined(parts)}</svg>'
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is as large."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _legend(entries: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """Samples with their names, from left to right in as many rows as they take."""
    along, row, parts = 0.0, 0, []
    for name, sample in entries:
        width = 24 + LETTER * len(name)
        if along and along + width > WIDTH:
            along, row = 0.0, row + 1
        place = f"translate({along:.0f} {row * LEGEND_ROW})"
        parts.append(f'<g transform="{place}">{sample}<text x="20" y="12">{text(name)}</text></g>')
        along += width + 10
    return "".join(parts), row + 1 if entries else 0


def _sample(look: str) -> str:
    return _mark((8, 8), look) if look in MARKS else _line([(0, 8), (16, 8)], look)


def _block(begin: float, top: float, width: float, colour: str) -> str:
    """A part of a bar; a gap tells it from the next one."""
    return (
        f'<rect x="{begin:.1f}" y="{top:g}" width="{max(width - 1, 0):.1f}" height="{BAR_HEIGHT}" '
        f'style="fill:var(--{colour})"/>'
    )


def _drawn(points: Sequence[tuple[float, float]], look: str) -> str:
    if look in MARKS:
        return "".join(_mark(point, look) for point in points)
    dots = points if len(points) <= DOTTED else ()
    style = f'style="fill:var(--{LINES[look][0]})"'
    return _line(points, look) + "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2" {style}/>' for x, y in dots
    )


def _line(points: Sequence[tuple[float, float]], look: str) -> str:
    colour, dashes = LINES[look]
    joint = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline class="line" style="stroke:var(--{colour});stroke-dasharray:{dashes or "none"}" points="{joint}"/>'
    )


def _mark(point: tuple[float, float], look: str) -> str:
    """A disc, a square for what was before, or a diamond for a knee, with an edge that sets it off the lines."""
    x, y = point
    style = f'style="fill:var(--{MARKS[look]});stroke:var(--paper)"'
    if look == "before":
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {style}/>'
    if look == "knee":
        corners = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in ((0, -6), (6, 0), (0, 6), (-6, 0)))
        return f'<polygon points="{corners}" {style}/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}/>'


def _in_words(series: Series, x: Axis, y: Axis) -> str:
    if series.look in MARKS:
        places = ", ".join(f"{y.name} {y.shown(b)} at {x.name} {x.shown(a)}" for a, b in series.points)
        return f"{series.name}, {places}"
    least, most = (pick(series.points, key=lambda point: point[1]) for pick in (min, max))
    return (
        f"{series.name}, {y.name} from {y.shown(least[1])} at {x.name} {x.shown(least[0])} "
        f"to {y.shown(most[1])} at {x.shown(most[0])}"
    )
