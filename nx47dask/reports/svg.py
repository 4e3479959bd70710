"""Make pieces of SVG drawings: points are (x, y) in pixels from the top left, colours are names of the page's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nx47dask.reports.markup import Html, joined, text

__all__ = ["Point", "block", "disc", "drawing", "label", "path", "polygon", "rule"]

Point = tuple[float, float]


def drawing(kind: str, size: Point, parts: Iterable[str], name: str = "", **data: str) -> Html:
    """Put pieces together; a drawing with a name, for screen readers, is as wide as its place."""
    width, height = size
    shown = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name, quote=True)}"'
    hidden = f'width="{width:g}" height="{height:g}" aria-hidden="true"'
    given = "".join(f' data-{key}="{text(value)}"' for key, value in data.items())
    return Html(f'<svg class="{kind}" {shown if name else hidden}{given}>{joined(parts)}</svg>')


def label(point: Point, words: object, anchor: str = "start") -> str:
    """Write words that start, end or have their middle at a point."""
    x, y = point
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text(words)}</text>'


def rule(kind: str, start: Point, end: Point) -> str:
    """Draw a straight line."""
    return f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def path(points: Iterable[Point], kind: str = "line", colour: str = "", dashes: str = "none") -> str:
    """Join points by lines, in the colour of their kind or another."""
    style = f' style="stroke:var(--{colour});stroke-dasharray:{dashes or "none"}"' if colour else ""
    return f'<polyline class="{kind}"{style} points="{_places(points)}"/>'


def disc(point: Point, radius: float, kind: str = "dot", colour: str = "", edge: str = "") -> str:
    """Draw a disc around a point."""
    return f'<circle class="{kind}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:g}"{_filled(colour, edge)}/>'


def block(corner: Point, size: Point, colour: str, edge: str = "") -> str:
    """Draw a rectangle below and to the right of its corner."""
    place = f'x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:g}"'
    return f"<rect {place}{_filled(colour, edge)}/>"


def polygon(points: Sequence[Point], colour: str, edge: str) -> str:
    """Fill the area between points."""
    return f'<polygon points="{_places(points)}"{_filled(colour, edge)}/>'


def _places(points: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _filled(colour: str, edge: str) -> str:
    stroke = f";stroke:var(--{edge})" if edge else ""
    return f' style="fill:var(--{colour}){stroke}"' if colour else ""
