"""Pictures of planes as WebP and PNG, measures along z and small bars as SVG."""

from __future__ import annotations

import base64
import io
import itertools
import zlib
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from nx47dask.report.markup import Html
from nx47dask.words import Paired, number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Curve", "classes_png", "data_uri", "fitted", "grey_webp", "sparkline", "svg_curve", "whisker"]

WEBP_QUALITY, WEBP_METHOD = 60, 2
LEVELS = 5
"""Steps of coverage in a shrunk overlay."""
LARGEST_POINTS = 300
"""Points of a curve; more are shown by the least and the greatest of each bin."""
SPARK_POINTS = 40
PLOT_WIDTH, PLOT_HEIGHT = 372, 112
SPARK_WIDTH, SPARK_HEIGHT = 88, 18
WHISKER_WIDTH, WHISKER_HEIGHT = 120, 14
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 8, 20


def fitted(shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Rows and columns of a picture of a plane whose longest side has at most ``pixels``; never enlarged."""
    scale = min(1.0, pixels / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def grey_webp(plane: NDArray[np.unsignedinteger], window: tuple[float, float], size: tuple[int, int]) -> bytes:
    """A plane of the scan in grey.

    Parameters
    ----------
    plane : ndarray of uint8 or uint16, shape (rows, columns)
    window : tuple of float
        Grey values drawn black and white; in between the scale is linear.
    size : tuple of int
        Rows and columns of the picture; pixels are means of the area they cover.

    Returns
    -------
    bytes
        Lossy WebP.
    """
    low, high = window
    grey = (_shrunk(plane, size) - low) / max(high - low, 1)
    image = Image.fromarray(np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8))
    return _encoded(image, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)


def classes_png(mask: NDArray[np.bool_], label: NDArray[np.uint8] | None, size: tuple[int, int]) -> bytes:
    """Mask and label of a plane in one small picture that the page's colour filters turn into overlays.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
    label : ndarray of uint8 or None
        0 background, 1 surface, 2 ignored.
    size : tuple of int
        Rows and columns of the picture.

    Returns
    -------
    bytes
        Palette PNG: red is the share of a pixel in the mask, green in the labelled surface, blue in what is ignored,
        alpha the greatest of them. In a shrunk plane shares are rounded up, so thin sheets fade but do not vanish.
    """
    channels = [mask] if label is None else [mask, label == 1, label == 2]
    while len(channels) > 1 and not channels[-1].any():
        channels.pop()
    levels = 1 if size == mask.shape else LEVELS
    index = np.zeros(size, dtype=np.uint8)
    for channel in channels:
        index = index * np.uint8(levels + 1) + np.ceil(levels * _shrunk(channel, size) - 1e-4).astype(np.uint8)
    shares = [
        [round(255 * s / levels) for s in one] for one in itertools.product(range(levels + 1), repeat=len(channels))
    ]
    image = Image.fromarray(index, mode="P")
    image.putpalette([value for one in shares for value in (*one, 0, 0)[:3]])
    return _encoded(image, "PNG", compress_type=zlib.Z_RLE, transparency=bytes(max(one) for one in shares))


def data_uri(kind: str, data: bytes) -> str:
    """A picture (``webp``, ``png``) as the address of an image."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


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
    behind : sequence of float or None
        The same measure of the baseline at the same slices; empty without one.
    """

    title: str
    first_z: int
    values: Sequence[float | None]
    top: float
    percent: bool = False
    behind: Sequence[float | None] = ()

    def label(self, value: float) -> str:
        """A value as the scale shows it."""
        if self.percent:
            return percent(value)
        return number(int(value)) if value == int(value) and value > 1 else f"{value:.2f}"

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
    """Draw a curve as SVG in the colours of the page (classes ``grid``, ``behind``, ``line``, ``dot``, ``cursor``)."""
    last_z = curve.first_z + len(curve.values) - 1
    right, bottom = PLOT_WIDTH - _RIGHT, PLOT_HEIGHT - _BOTTOM
    middle = (_TOP + bottom) / 2
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:g}" y2="{y:g}"/>' for y in (_TOP, middle, bottom)
    )
    ends = f'<text x="{_LEFT}" y="{PLOT_HEIGHT - 5}">z {curve.first_z}</text>'
    if last_z > curve.first_z:
        ends += f'<text x="{right}" y="{PLOT_HEIGHT - 5}" text-anchor="end">z {last_z}</text>'
    scale = "".join(
        f'<text x="{_LEFT - 5}" y="{y + 4:g}" text-anchor="end">{text}</text>'
        for y, text in ((_TOP, curve.label(curve.top)), (bottom, "0"))
    )
    name = escape(f"{curve.title}, z {curve.first_z} to {last_z}: {curve.summary()}", quote=True)
    place = (len(curve.values), curve.top)
    return (
        f'<svg class="curve" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="{name}" '
        f'data-z="{curve.first_z} {last_z}" data-x="{_LEFT} {right}">'
        f"{lines}{_marks(curve.behind, *place, 'behind')}{_marks(curve.values, *place, 'line')}{ends}{scale}"
        f'<line class="cursor" y1="{_TOP}" y2="{bottom}" x1="-9" x2="-9"/></svg>'
    )


def sparkline(values: Sequence[float], top: float) -> Html:
    """Values from left to right as a small line without a scale; the readers' text is beside it."""
    step = -(-len(values) // SPARK_POINTS)
    means = [sum(values[i : i + step]) / len(values[i : i + step]) for i in range(0, len(values), step)]
    across = (SPARK_WIDTH - 2) / max(len(means) - 1, 1)
    points = " ".join(
        f"{1 + across * i:.0f},{1 + (SPARK_HEIGHT - 2) * (1 - value / (top or 1)):.1f}" for i, value in enumerate(means)
    )
    return Html(
        f'<svg class="spark" width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" aria-hidden="true">'
        f'<polyline class="line" points="{points}"/></svg>'
    )


def whisker(paired: Paired) -> Html:
    """The interval of a difference as a line with a dot at the mean, on a scale of its own with a mark at 0."""
    low, mean, high = paired["low"], paired["mean"], paired["high"]
    reach = max(abs(low), abs(high)) or 1

    def x(value: float) -> str:
        return f"{WHISKER_WIDTH / 2 * (1 + 0.94 * value / reach):.1f}"

    y = WHISKER_HEIGHT / 2
    return Html(
        f'<svg class="whisker" width="{WHISKER_WIDTH}" height="{WHISKER_HEIGHT}" aria-hidden="true">'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{WHISKER_HEIGHT}"/>'
        f'<line class="line" x1="{x(low)}" x2="{x(high)}" y1="{y:g}" y2="{y:g}"/>'
        f'<circle class="dot" cx="{x(mean)}" cy="{y:g}" r="3"/></svg>'
    )


def _marks(values: Sequence[float | None], count: int, top: float, kind: str) -> str:
    """The line through the values, broken where there is none; single values as dots."""
    step = (PLOT_WIDTH - _LEFT - _RIGHT) / max(count - 1, 1)
    height = PLOT_HEIGHT - _TOP - _BOTTOM
    marks = []
    for run in _runs(values):
        points = [
            f"{_LEFT + step * i:.1f},{_TOP + height * (1 - value / (top or 1)):.1f}" for i, value in _thinned(run)
        ]
        if len(points) == 1:
            x, y = points[0].split(",")
            marks.append(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="2.5"/>')
        else:
            marks.append(f'<polyline class="{kind}" points="{" ".join(points)}"/>')
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
    """At most 300 points that keep every dip and peak."""
    if len(run) <= LARGEST_POINTS:
        return run
    size = -(-2 * len(run) // LARGEST_POINTS)
    bins = [run[i : i + size] for i in range(0, len(run), size)]
    kept = [{min(one, key=_value), max(one, key=_value)} for one in bins]
    return [point for pair in kept for point in sorted(pair)]


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _shrunk(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Means over the area of each pixel of a smaller picture."""
    values = plane.astype(np.float32)
    if size == plane.shape:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BOX))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
