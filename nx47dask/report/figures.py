"""Figures of the report: planes of a scan and of a mask as PNG, measures along z as SVG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nx47dask.report.markup import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Curve", "mask_png", "png_uri", "scan_png", "shrink_factor", "svg_curve"]

LARGEST_PIXELS = 512
"""Longest side of a picture."""
MASK_RGB = (255, 106, 0)
FILL_ALPHA, OUTLINE_ALPHA = 84, 216
LARGEST_POINTS = 600
"""Points of a curve; more are shown by the least and the greatest of each bin."""
PLOT_WIDTH, PLOT_HEIGHT = 480, 110
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 20


def shrink_factor(shape: tuple[int, int]) -> int:
    """Pixels of a plane per pixel of its picture, along each side."""
    return -(-max(shape) // LARGEST_PIXELS)


def scan_png(plane: NDArray[np.unsignedinteger], minimum: int, maximum: int) -> bytes:
    """A plane of the scan in grey.

    Parameters
    ----------
    plane : ndarray of uint8 or uint16, shape (rows, columns)
    minimum, maximum : int
        Grey values drawn black and white, those of the whole volume; in between the scale is linear.

    Returns
    -------
    bytes
        PNG, 8-bit grey. A plane larger than 512 pixels is shrunk by a whole factor, to means.
    """
    grey = (_means(plane, shrink_factor((plane.shape[0], plane.shape[1]))) - minimum) / max(maximum - minimum, 1)
    return _png(Image.fromarray(np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)))


def mask_png(plane: NDArray[np.bool_]) -> bytes:
    """A plane of the mask to lay over the scan: translucent, with a stronger outline.

    Parameters
    ----------
    plane : ndarray of bool, shape (rows, columns)

    Returns
    -------
    bytes
        PNG of one colour, transparent where there is no mask. In a shrunk plane the opacity follows the covered part
        of a pixel, so thin sheets fade but do not vanish.
    """
    factor = shrink_factor((plane.shape[0], plane.shape[1]))
    if factor == 1:
        alpha = np.where(plane, np.where(_inside(plane), FILL_ALPHA, OUTLINE_ALPHA), 0).astype(np.uint8)
    else:
        alpha = np.ceil(_means(plane.view(np.uint8), factor) * OUTLINE_ALPHA).astype(np.uint8)
    image = Image.fromarray(alpha, mode="P")
    image.putpalette(MASK_RGB * 256)
    return _png(image, transparency=bytes(range(256)))


def png_uri(png: bytes) -> str:
    """A PNG as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@dataclass(frozen=True)
class Curve:
    """A measure along z.

    Attributes
    ----------
    title : str
        What it is, for readers who do not see it.
    first_z : int
        z of the first value.
    values : sequence of float or None
        One per slice; None where there is none.
    top : float
        Upper end of the scale, which starts at 0.
    percent : bool
        Whether the scale is labelled in per cent.
    """

    title: str
    first_z: int
    values: Sequence[float | None]
    top: float
    percent: bool = False

    def label(self, value: float) -> str:
        """A value as the scale shows it."""
        return percent(value) if self.percent else f"{value:.2f}"

    def summary(self) -> str:
        """Mean and extremes in words."""
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


def svg_curve(curve: Curve) -> str:
    """Draw a curve as SVG in the colours of the page (classes ``grid``, ``line``, ``dot``)."""
    last_z = curve.first_z + len(curve.values) - 1
    right, bottom = PLOT_WIDTH - _RIGHT, PLOT_HEIGHT - _BOTTOM
    lines = "".join(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>' for y in (_TOP, bottom))
    ends = f'<text x="{_LEFT}" y="{PLOT_HEIGHT - 5}">z {curve.first_z}</text>'
    if last_z > curve.first_z:
        ends += f'<text x="{right}" y="{PLOT_HEIGHT - 5}" text-anchor="end">z {last_z}</text>'
    scale = (
        f'<text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{curve.label(curve.top)}</text>'
        f'<text x="{_LEFT - 5}" y="{bottom}" text-anchor="end">0</text>'
    )
    name = escape(f"{curve.title}, z {curve.first_z} to {last_z}: {curve.summary()}", quote=True)
    return (
        f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="{name}">'
        f"{lines}{_marks(curve)}{ends}{scale}</svg>"
    )


def _marks(curve: Curve) -> str:
    """The line through the values, broken where there is none; single values as dots."""
    step = (PLOT_WIDTH - _LEFT - _RIGHT) / max(len(curve.values) - 1, 1)
    height = PLOT_HEIGHT - _TOP - _BOTTOM
    marks = []
    for run in _runs(curve.values):
        points = [
            f"{_LEFT + step * i:.1f},{_TOP + height * (1 - value / (curve.top or 1)):.1f}" for i, value in _thinned(run)
        ]
        if len(points) == 1:
            x, y = points[0].split(",")
            marks.append(f'<circle class="dot" cx="{x}" cy="{y}" r="2.5"/>')
        else:
            marks.append(f'<polyline class="line" points="{" ".join(points)}"/>')
    return "".join(marks)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches of known values, as (position, value)."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(values):
        if value is not None:
            runs[-1].append((i, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _thinned(run: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most 600 points that keep every dip and peak."""
    if len(run) <= LARGEST_POINTS:
        return run
    size = -(-2 * len(run) // LARGEST_POINTS)
    bins = [run[i : i + size] for i in range(0, len(run), size)]
    kept = [{min(one, key=_value), max(one, key=_value)} for one in bins]
    return [point for pair in kept for point in sorted(pair)]


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _means(plane: NDArray[np.unsignedinteger], factor: int) -> NDArray[np.float64]:
    """Means over squares of ``factor`` pixels, smaller ones at the far edges."""
    if factor == 1:
        return plane.astype(np.float64)
    starts = [np.arange(0, size, factor) for size in plane.shape]
    rows = np.add.reduceat(plane, starts[0], axis=0, dtype=np.uint32)
    sums = np.add.reduceat(rows, starts[1], axis=1, dtype=np.uint64)
    high, wide = (np.diff(np.append(start, size)) for start, size in zip(starts, plane.shape, strict=True))
    means: NDArray[np.float64] = sums / (high[:, None] * wide[None, :])
    return means


def _inside(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask with no background beside them; beyond the edge lies no background."""
    padded = np.pad(plane, 1, mode="edge")
    inside: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside


def _png(image: Image.Image, **options: bytes) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, **options)
    return stream.getvalue()
