"""Draw charts as SVG in the colours of the page: lines and points, bars in parts, measures along z, whiskers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nx47dask.reports.markup import Html, text
from nx47dask.reports.svg import Point, block, disc, drawing, label, path, polygon, rule
from nx47dask.words import number, percent

__all__ = [
    "Axis",
    "Curve",
    "Series",
    "bars",
    "chart",
    "choice_axis",
    "figure",
    "linear_axis",
    "log_axis",
    "sparkline",
    "svg_curve",
    "whisker",
]

WIDTH, PLOT_HEIGHT, CURVE_HEIGHT = 372, 150, 84
LEFT, RIGHT, CURVE_RIGHT = 46, 18, 6
LEGEND_ROW, BAR_ROW, BAR_HEIGHT = 16, 29, 10
LETTER = 5.9
"""Mean width of a letter of the page's 11 px type, for the places of a legend."""
INTERVALS = 5
"""Approximate number of intervals between the ticks of an axis."""
DOTTED = 12
"""Lines of up to so many points show each point as a dot."""
LINES = {
    "line": ("accent", ""),
    "second": ("good", "6 3"),
    "third": ("ink", "2 2"),
    "fourth": ("behind", "8 3 2 3"),
}
"""Colour of the page and dashes, so that lines can be told apart without colour."""
LARGEST_POINTS = 300
"""Largest number of points of a curve; of more, the smallest and largest of each bin are drawn."""
SPARK_POINTS, SPARK = 40, (88, 18)
WHISKER = (120, 14)
MARKS = {"here": "accent", "before": "behind", "knee": "good"}


@dataclass(frozen=True)
class Axis:
    """Axis of a chart.

    Attributes
    ----------
    name : str
    low, high : float
        Ends of the axis; above 0 for a logarithmic axis.
    ticks : sequence of (float, str)
        Values with a label.
    percent : bool
        True if values are shares, shown in per cent.
    log : bool
        True for a logarithmic axis.
    """

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    percent: bool = False
    log: bool = False

    def share(self, value: float) -> float:
        """Return the place of a value on the axis, from 0 to 1."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def shown(self, value: float) -> str:
        """Return a value as text."""
        if self.percent:
            return percent(value)
        return dict(self.ticks).get(value, f"{value:,.4g}")


@dataclass(frozen=True)
class Plot:
    """Axes of a chart and the edges of the area between them, in pixels."""

    x: Axis
    y: Axis
    top: float
    height: float
    right: float

    @property
    def bottom(self) -> float:
        """Position of the x axis."""
        return self.top + self.height

    def place(self, x: float, y: float) -> Point:
        """Return the point of two values, in pixels."""
        return LEFT + (self.right - LEFT) * self.x.share(x), self.bottom - self.height * self.y.share(y)

    def levels(self) -> list[str]:
        """Draw a line across at each tick of the y axis."""
        heights = [(self.place(self.x.low, value)[1], words) for value, words in self.y.ticks]
        lines = [rule("grid", (LEFT, height), (self.right, height)) for height, _ in heights]
        return lines + [label((LEFT - 5, height + 4), words, "end") for height, words in heights]


@dataclass(frozen=True)
class Series:
    """Series of points of a chart.

    Attributes
    ----------
    name : str
    points : sequence of (float, float)
        Points in the order in which a line joins them.
    look : str
        A line (``line``, ``second``, ``third``, ``fourth``) or single marks (``here``, ``before``, ``knee``).
    """

    name: str
    points: Sequence[tuple[float, float]]
    look: str = "line"


def linear_axis(name: str, values: Iterable[float], *, percent: bool = False) -> Axis:
    """Make an axis around one or more values, with ticks at round numbers."""
    every = list(values)
    low, high = min(every), max(every)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        margin = max(abs(low) / 10, 0.01)
        low, high = low - margin, high + margin
    step = _round_step((high - low) / INTERVALS)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) - 2 * percent)
    steps = range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    # Adding 0 turns -0.0 into 0.0; the sign would be shown.
    ticks = [
        (k * step, f"{100 * k * step + 0:.{digits}f} %" if percent else f"{k * step + 0:,.{digits}f}") for k in steps
    ]
    return Axis(name, steps[0] * step, steps[-1] * step, ticks, percent)


def log_axis(name: str, values: Iterable[float]) -> Axis:
    """Make a logarithmic axis around one or more values above 0, with ticks at 1, 2 and 5 of each power of ten."""
    every = list(values)
    low, high = min(every), max(every)
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    decades = [value for value in within if math.log10(value).is_integer()]
    shown = decades if len(decades) > 1 else within
    return Axis(name, low, high, [(value, f"{value:,.10g}") for value in shown], log=True)


def choice_axis(name: str, labels: Sequence[str]) -> Axis:
    """Make an axis of choices at 0, 1, 2, ..."""
    return Axis(name, -0.5, len(labels) - 0.5, list(enumerate(labels)))


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Html:
    """Draw lines and points on two axes.

    Parameters
    ----------
    title : str
        Title for screen readers; the values are added to it.
    x, y : Axis
    series : sequence of Series
        Series in the order of drawing; series without points are left out.
    """
    drawn = [each for each in series if each.points]
    legend, rows = _legend([(each.name, _sample(each.look)) for each in drawn])
    top, right = rows * LEGEND_ROW + 24, WIDTH - RIGHT
    plot = Plot(x, y, top, PLOT_HEIGHT, right)
    parts = [legend, label((0, top - 11), y.name), *plot.levels()]
    for value, words in x.ticks:
        along, bottom = plot.place(value, y.low)
        parts.append(rule("grid", (along, bottom), (along, bottom + 4)))
        parts.append(label((along, bottom + 15), words, "middle"))
    parts.append(label((right, plot.bottom + 30), x.name, "end"))
    parts += [_drawn([plot.place(*point) for point in each.points], each.look) for each in drawn]
    aloud = "; ".join(_in_words(each, x, y) for each in drawn)
    return drawing("curve", (WIDTH, plot.bottom + 35), parts, f"{title}: {aloud or 'no values'}")


def bars(title: str, parts: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str, Sequence[float]]]) -> Html:
    """Draw shares of a whole as bars in parts.

    Parameters
    ----------
    title : str
        Title for screen readers; the values are added to it.
    parts : sequence of (str, str)
        Name and colour of the page (``accent``, ``good``, ``bad``, ``behind``, ``bar``) of each part.
    rows : sequence of (str, str, sequence of float)
        Name of each bar, text at its end, and its parts: shares that add up to at most 1.
    """
    legend, lines = _legend([(name, block((0, 3), (13, BAR_HEIGHT), colour)) for name, colour in parts])
    top, marks, aloud = lines * LEGEND_ROW + 4, [legend], []
    for name, amount, shares in rows:
        marks += [label((0, top + 11), name), label((WIDTH, top + 11), amount, "end"), _part(0, top, 1, "band")]
        begin = 0.0
        for share, (_, colour) in zip(shares, parts, strict=True):
            marks.append(_part(begin, top, share, colour))
            begin += share
        named = zip(parts, shares, strict=True)
        aloud.append(f"{name} {', '.join(f'{part} {percent(share)}' for (part, _), share in named)}")
        top += BAR_ROW
    return drawing("curve", (WIDTH, top + 2), marks, f"{title}: {'; '.join(aloud)}")


@dataclass(frozen=True)
class Curve:
    """Measure along z, as a curve.

    Attributes
    ----------
    title : str
        Title for screen readers.
    first_z : int
        z of the first value.
    values : sequence of float or None
        A value per slice; None if it is missing.
    top : float
        Upper end of the scale, which starts at 0.
    percent : bool
        True if the scale is labelled in per cent.
    behind : sequence of float or None
        The same measure of the baseline at the same slices; empty without a baseline.
    """

    title: str
    first_z: int
    values: Sequence[float | None]
    top: float
    percent: bool = False
    behind: Sequence[float | None] = ()

    def label(self, value: float) -> str:
        """Return a value as the scale shows it."""
        if self.percent:
            return percent(value)
        return number(int(value)) if value == int(value) and value > 1 else f"{value:.2f}"

    def summary(self) -> str:
        """Return mean and extremes as text."""
        known = [(value, self.first_z + i) for i, value in enumerate(self.values) if value is not None]
        if not known:
            return "no values"
        low, high = min(known), max(known, key=lambda pair: (pair[0], -pair[1]))
        mean = sum(value for value, _ in known) / len(known)
        if len(known) == 1:
            return f"{self.label(mean)} at z {low[1]}"
        return (
            f"mean {self.label(mean)}, least {self.label(low[0])} at z {low[1]}, "
            f"greatest {self.label(high[0])} at z {high[1]}"
        )


def svg_curve(curve: Curve) -> Html:
    """Draw a curve, with a cursor that the page's script moves."""
    last_z, top = curve.first_z + len(curve.values) - 1, curve.top or 1
    levels = [(0.0, "0"), (top / 2, ""), (top, curve.label(curve.top))]
    # The axis of a single slice has different ends, so that the slice is at the left.
    x, y = Axis("z", curve.first_z, max(last_z, curve.first_z + 1), ()), Axis("", 0, top, levels)
    plot = Plot(x, y, 8, CURVE_HEIGHT, WIDTH - CURVE_RIGHT)
    parts = [*plot.levels(), *_stretches(plot, curve.behind, "behind"), *_stretches(plot, curve.values, "line")]
    parts.append(label((LEFT, plot.bottom + 15), f"z {curve.first_z}"))
    if last_z > curve.first_z:
        parts.append(label((plot.right, plot.bottom + 15), f"z {last_z}", "end"))
    parts.append(rule("cursor", (-9, plot.top), (-9, plot.bottom)))
    name = f"{curve.title}, z {curve.first_z} to {last_z}: {curve.summary()}"
    size, reach = (WIDTH, plot.bottom + 20), f"{LEFT} {plot.right:g}"
    return drawing("curve", size, parts, name, z=f"{curve.first_z} {last_z}", x=reach)


def sparkline(values: Sequence[float], top: float) -> Html:
    """Draw values from left to right as a small line without a scale; the readers' text is beside it."""
    step = -(-len(values) // SPARK_POINTS)
    means = [sum(values[i : i + step]) / len(values[i : i + step]) for i in range(0, len(values), step)]
    across, down = (SPARK[0] - 2) / max(len(means) - 1, 1), SPARK[1] - 2
    points = ((round(1 + across * i), 1 + down * (1 - value / (top or 1))) for i, value in enumerate(means))
    return drawing("spark", SPARK, [path(points)])


def whisker(paired: Mapping[str, Any]) -> Html:
    """Draw the interval of a difference as a line with a dot at the mean, on a scale of its own with a mark at 0."""
    low, mean, high = (paired[key] for key in ("low", "mean", "high"))
    reach, middle = max(abs(low), abs(high)) or 1, WHISKER[1] / 2

    def x(value: float) -> float:
        return WHISKER[0] / 2 * (1 + 0.94 * value / reach)

    zero, interval = ((x(0), 0), (x(0), WHISKER[1])), ((x(low), middle), (x(high), middle))
    return drawing("whisker", WHISKER, [rule("zero", *zero), rule("line", *interval), disc((x(mean), middle), 3)])


def figure(name: str, about: str, drawing: Html) -> Html:
    """Return a drawing with its caption."""
    caption = f'<figcaption style="min-height:0"><b>{text(name)}</b> {text(about)}</figcaption>'
    return Html(f"<figure>{caption}{drawing}</figure>")


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least as large as a value."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _legend(entries: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """Draw samples of the series with their names, from left to right in as many rows as needed."""
    along, row, parts = 0.0, 0, []
    for name, sample in entries:
        width = 24 + LETTER * len(name)
        if along and along + width > WIDTH:
            along, row = 0.0, row + 1
        place = f"translate({along:.0f} {row * LEGEND_ROW})"
        parts.append(f'<g transform="{place}">{sample}{label((20, 12), name)}</g>')
        along += width + 10
    return "".join(parts), row + 1 if entries else 0


def _sample(look: str) -> str:
    return _mark((8, 8), look) if look in MARKS else path([(0, 8), (16, 8)], "line", *LINES[look])


def _part(begin: float, top: float, share: float, colour: str) -> str:
    """Draw a part of the bar of a row; a gap separates it from the next part."""
    return block((WIDTH * begin, top + 15), (max(WIDTH * share - 1, 0), BAR_HEIGHT), colour)


def _drawn(points: Sequence[Point], look: str) -> str:
    if look in MARKS:
        return "".join(_mark(point, look) for point in points)
    dots = points if len(points) <= DOTTED else ()
    return path(points, "line", *LINES[look]) + "".join(disc(dot, 2, colour=LINES[look][0]) for dot in dots)


def _mark(point: Point, look: str) -> str:
    """Draw a mark with an edge that separates it from the lines: a disc, a square (before) or a diamond (knee)."""
    (x, y), colour = point, MARKS[look]
    if look == "before":
        return block((x - 4, y - 4), (8, 8), colour, "paper")
    if look == "knee":
        return polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], colour, "paper")
    return disc(point, 4.5, "", colour, "paper")


def _stretches(plot: Plot, values: Sequence[float | None], kind: str) -> list[str]:
    """Draw the line through the values, broken at missing values; single values become dots."""
    drawn = []
    for run in _runs(values):
        points = [plot.place(plot.x.low + i, value) for i, value in _thinned(run)]
        drawn.append(path(points, kind) if len(points) > 1 else disc(points[0], 2.5, f"dot {kind}"))
    return drawn


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Split values into stretches of known values, as (position, value)."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(values):
        if value is not None:
            runs[-1].append((i, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _thinned(run: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Reduce a curve to at most 300 points that keep every dip and peak."""
    if len(run) <= LARGEST_POINTS:
        return run
    size = -(-2 * len(run) // LARGEST_POINTS)
    bins = [run[i : i + size] for i in range(0, len(run), size)]
    kept = [{pick(stretch, key=lambda point: point[1]) for pick in (min, max)} for stretch in bins]
    return [point for pair in kept for point in sorted(pair)]


def _in_words(series: Series, x: Axis, y: Axis) -> str:
    if series.look in MARKS:
        places = ", ".join(f"{y.name} {y.shown(b)} at {x.name} {x.shown(a)}" for a, b in series.points)
        return f"{series.name}, {places}"
    least, most = (pick(series.points, key=lambda point: point[1]) for pick in (min, max))
    return (
        f"{series.name}, {y.name} from {y.shown(least[1])} at {x.name} {x.shown(least[0])} "
        f"to {y.shown(most[1])} at {x.shown(most[0])}"
    )
