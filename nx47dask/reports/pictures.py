"""Draw pictures of a volume for the report: slices, defects and jumps, within a budget of bytes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nx47dask.errors import BlockError, InputError
from nx47dask.geometry import Box, parse_bbox
from nx47dask.metrics.score import DEFECT_KINDS
from nx47dask.reports.pixels import classes_png, data_uri, fitted, grey_webp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from nx47dask.metrics.score import Defect, DefectKind, Defects
    from nx47dask.reports.content import VolumeFacts
    from nx47dask.runs.manifest import ScanMetrics
    from nx47dask.runs.run import Run

__all__ = ["Allowance", "Picture", "Place", "Voxels", "draw_defects", "draw_jumps", "draw_slices", "open_voxels"]

MARKUP_BYTES = 700
MOST_SLICES = 36
"""Largest number of slices across an axis."""
WHOLE_VOXELS = 64 << 20
"""Largest volume that is read as a whole, in voxels; of larger volumes each plane is read by itself."""
READ_VOXELS = 4 << 30
"""Largest number of voxels to decode for the slices of a large volume."""
CHUNK = 128
"""Depth in voxels that is decoded for a plane of a store."""
PLACES = 3
"""Number of holes, and of bridges, that are drawn."""
MARGIN_VOX, SMALLEST_CROP_VOX, LARGEST_CROP_VOX = 12, 56, 192
JUMP_PIXELS = 224
WHITE_SHARE = 0.001
"""Share of the darkest voxels, and of the brightest, that the grey scale leaves out."""


class Allowance:
    """Bytes that are left for pictures on the page."""

    def __init__(self, left_bytes: int) -> None:
        self.left_bytes = left_bytes

    def take(self, picture: Picture) -> bool:
        """Return True if a picture still fits, and subtract its size then."""
        if picture.size_bytes > self.left_bytes:
            return False
        self.left_bytes -= picture.size_bytes
        return True


@dataclass(frozen=True)
class Picture:
    """Picture of a plane or a part of it: addresses of the scan and of its overlay.

    Attributes
    ----------
    axis, at : int
        Axis and position of the plane, in voxels of the volume.
    share : float
        Share of the plane in the mask.
    shape : tuple of int
        Rows and columns in voxels.
    frame : tuple of float or None
        Box to mark: left, top, width and height as shares of the picture.
    """

    axis: int
    at: int
    share: float
    shape: tuple[int, int]
    scan: str
    overlay: str
    frame: tuple[float, float, float, float] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that the picture adds to the page, with its caption and its text for screen readers."""
        return len(self.scan) + len(self.overlay) + MARKUP_BYTES


@dataclass(frozen=True)
class Place:
    """Place of interest: a description, its box in voxels of the volume in the form of ``--bbox``, its pictures."""

    title: str
    box: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Voxels:
    """Scan, mask and labels of a volume, read on demand.

    Attributes
    ----------
    box : Box
        Part of the volume that the arrays cover, in voxels; they are read by boxes relative to it.
    window : tuple of float
        Grey values that are drawn black and white.
    """

    box: Box
    image: Callable[[Box], NDArray[Any]]
    mask: Callable[[Box], NDArray[Any]]
    label: Callable[[Box], NDArray[Any]] | None
    window: tuple[float, float]

    def picture(
        self, axis: int, at: int, pixels: int, *, within: Box | None = None, point: Box | None = None
    ) -> Picture:
        """Draw a plane, or its part in a box, and mark another box; all in voxels of the volume."""
        part = within or self.box
        start, stop = list(part.start), list(part.stop)
        start[axis], stop[axis] = at, at + 1
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).relative_to(self.box.start)
        scan, mask = self.image(box).squeeze(axis), self.mask(box).squeeze(axis) != 0
        label = self.label(box).squeeze(axis) if self.label else None
        shape = (mask.shape[0], mask.shape[1])
        size = fitted(shape, pixels)
        return Picture(
            axis,
            at,
            float(np.count_nonzero(mask)) / mask.size,
            shape,
            data_uri("webp", grey_webp(scan, self.window, size)),
            data_uri("png", classes_png(mask, label, size)),
            _frame(part, point, axis) if point else None,
        )


def open_voxels(run: Run, facts: VolumeFacts) -> tuple[Voxels, str]:
    """Open the scan, mask and labels of a volume, as far as they exist.

    Returns
    -------
    Voxels, str
        The arrays, and a sentence on labels that cannot be read; it is empty otherwise.

    Raises
    ------
    InputError
        The store and the files that it was made from are missing, or a file cannot be read.
    BlockError
        A chunk cannot be read.
    """
    volume = run[facts.id]
    label, lack = None, ""
    try:
        label = None if volume.labels is None else _reader(volume.labels)
    except (InputError, BlockError) as error:
        lack = f"Drawn without its labels: {error}."
    return (
        Voxels(
            facts.box,
            _reader(volume.image),
            _reader(volume.mask),
            label,
            _grey_window(facts.metrics["scan"], run.manifest["inputs"][facts.id]["dtype"]),
        ),
        lack,
    )


def draw_slices(voxels: Voxels, allowance: Allowance, pixels: int) -> list[list[Picture]]:
    """Draw evenly spaced planes across z, y and x, at most 36 of each.

    Their number follows from the size of the middle ones; when the allowance ends early, gaps are left where
    neighbours are near.

    Returns
    -------
    list of list of Picture
        For each axis, in order of their planes.
    """
    box = voxels.box
    middles = [voxels.picture(axis, box.start[axis] + box.shape[axis] // 2, pixels) for axis in range(3)]
    per_set = sum(picture.size_bytes for picture in middles)
    count = max(
        1, min(MOST_SLICES, allowance.left_bytes // (per_set + per_set // 8), READ_VOXELS // _read_cost(voxels))
    )
    drawn: list[list[Picture]] = [[], [], []]
    for i in sorted(range(count), key=lambda i: -(i & -i or count)):  # coarse to fine
        for axis in range(3):
            at = _position(i, count, box.shape[axis])
            if any(picture.at == box.start[axis] + at for picture in drawn[axis]):
                continue
            picture = middles[axis] if count == 1 else voxels.picture(axis, box.start[axis] + at, pixels)
            if not allowance.take(picture):
                break
            drawn[axis].append(picture)
    return [sorted(pictures, key=lambda picture: picture.at) for pictures in drawn]


def draw_defects(voxels: Voxels, defects: Mapping[DefectKind, Defects], allowance: Allowance) -> list[Place]:
    """Draw the largest spurious holes and bridges, each in three planes through its middle.

    Parameters
    ----------
    defects : mapping
        ``holes`` and ``bridges`` of a score; boxes are those of the written mask.
    """
    return [
        place
        for kind in DEFECT_KINDS
        for n, defect in enumerate(defects[kind]["places"][:PLACES])
        for place in _defect(voxels, f"{kind[:-1].capitalize()} {n + 1}", defect, allowance)
    ]


def draw_jumps(voxels: Voxels, densities: Sequence[float], allowance: Allowance) -> list[Place]:
    """Draw the slices where the density changes most, each beside the slice before it."""
    steps = [(abs(b - a), -z) for z, (a, b) in enumerate(itertools.pairwise(densities), 1) if a != b]
    first = voxels.box.start[0]
    places = []
    for _, z in sorted(steps, reverse=True)[:PLACES]:
        pictures = [voxels.picture(0, first - z - before, JUMP_PIXELS) for before in (1, 0)]
        if all(map(allowance.take, pictures)):
            where = Box((first - z - 1, *voxels.box.start[1:]), (first - z + 1, *voxels.box.stop[1:]))
            places.append(Place(f"z {first - z - 1} to {first - z}", str(where), pictures))
    return places


def _defect(voxels: Voxels, title: str, defect: Defect, allowance: Allowance) -> Iterator[Place]:
    box = parse_bbox(defect["box"], voxels.box.shape).shift(voxels.box.start)
    around = _surroundings(box, voxels.box)
    centre = [(a + b) // 2 for a, b in zip(box.start, box.stop, strict=True)]
    pictures = [voxels.picture(axis, centre[axis], LARGEST_CROP_VOX, within=around, point=box) for axis in range(3)]
    if all(map(allowance.take, pictures)):
        yield Place(f"{title}, {defect['voxels']:,} voxel{'s' * (defect['voxels'] != 1)}", str(box), pictures)


def _surroundings(box: Box, limits: Box) -> Box:
    """Return a box with its surroundings: large enough for orientation, small enough for details."""
    start, stop = [], []
    for a, b, low, high in zip(box.start, box.stop, limits.start, limits.stop, strict=True):
        edge = min(max(b - a + 2 * MARGIN_VOX, SMALLEST_CROP_VOX), LARGEST_CROP_VOX, high - low)
        start.append(min(max((a + b - edge) // 2, low), high - edge))
        stop.append(start[-1] + edge)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _frame(part: Box, point: Box, axis: int) -> tuple[float, float, float, float]:
    inner = point.clip(part)
    rows, columns = (other for other in range(3) if other != axis)
    left, top = ((inner.start[a] - part.start[a]) / part.shape[a] for a in (columns, rows))
    width, height = (inner.shape[a] / part.shape[a] for a in (columns, rows))
    return left, top, width, height


def _position(i: int, count: int, length: int) -> int:
    return min((2 * i + 1) * length // (2 * count), length - 1)


def _read_cost(voxels: Voxels) -> int:
    """Count the voxels to decode for a plane across each axis."""
    z, y, x = voxels.box.shape
    return (2 if voxels.label is None else 3) * sum(
        area * min(CHUNK, depth) for area, depth in ((y * x, z), (z * x, y), (z * y, x))
    )


def _grey_window(scan: ScanMetrics, dtype: str) -> tuple[float, float]:
    """Find the grey values between which nearly all voxels lie, from the histogram of 256 bins."""
    counts = np.cumsum(scan["histogram"])
    low, high = np.searchsorted(counts, [WHITE_SHARE * counts[-1], (1 - WHITE_SHARE) * counts[-1]])
    width = (np.iinfo(dtype).max + 1) // len(counts)
    return max(float(low) * width, scan["minimum"]), min(float(high + 1) * width - 1, scan["maximum"])


def _reader(array: da.Array) -> Callable[[Box], NDArray[Any]]:
    """Reader of boxes of an array; a small array is read once instead of plane by plane."""

    def read(box: Box) -> NDArray[Any]:
        return np.asarray(array[box.slices].compute(scheduler="synchronous"))

    if array.size > WHOLE_VOXELS:
        return read
    voxels = read(Box.of_shape(array.shape))
    return lambda box: voxels[box.slices]
