"""Known defects in a mask of several sheets, and what became of them: pinholes, holes, bridges, specks.

Sheets are integer labels (Z, Y, X), 0 background. Noise comes first (ragged faces); then every defect is planted into
the noisy mask, one by one, away from the others and from the border, and is kept only where it does what its name says:
a hole opens a passage through its sheet, a bridge joins two sheets, a speck stands alone, each with the Euler number
of the 6-connected mask that goes with it. Foreground is 6-connected and background 26-connected, as in the score.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number

__all__ = ["Defect", "Planted", "Recipe", "Repaired", "blurred", "plant", "read_sheets", "repaired"]

Mask = NDArray[np.bool_]
Sheets = NDArray[np.integer]
Kind = Literal["hole", "bridge", "speck"]

BORDER = 8
"""Voxels along the border without defects, in which nothing is counted as lost either."""
HONEST_VOX = 2
"""Surface nearer than this to a planted defect is not asked whether it is lost."""
AROUND_VOX = 3
"""What a defect is judged by reaches this far around it."""
LONGEST_VOX = 24
"""A line across a sheet is followed this far."""
NARROW_VOX, WIDE_VOX = 2.0, 8.0
"""Gaps that are bridged."""
NORMAL_VOX = 8
"""The normal of a sheet is taken from this far around."""
TRIES = 150
FACES, ALL = ndimage.generate_binary_structure(3, 1), ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class Recipe:
    """What to plant.

    Parameters
    ----------
    seed : int
    holes, bridges, specks : int
        How many to plant at most; there are fewer where no place is found.
    hole_radius_vox, bridge_radius_vox : (float, float)
        Range of radii in the sheet's tangent plane; those of holes even on a logarithmic scale.
    speck_voxels : (int, int)
        Range of sizes.
    flipped : float
        Share of the voxels beside the mask's faces, on both sides, that change sides.
    smooth_vox : float
        Standard deviation of a Gaussian that the flipped mask goes through before it is cut at one half, so that it
        looks like a probability with a threshold; 0 leaves it as it is.
    """

    seed: int = 0
    holes: int = 200
    bridges: int = 100
    specks: int = 200
    hole_radius_vox: tuple[float, float] = (0.5, 6.0)
    bridge_radius_vox: tuple[float, float] = (1.0, 3.0)
    speck_voxels: tuple[int, int] = (1, 30)
    flipped: float = 0.2
    smooth_vox: float = 0.7


@dataclass(frozen=True)
class Defect:
    """A planted defect.

    Attributes
    ----------
    kind : {"hole", "bridge", "speck"}
    centre : tuple of int
        (Z, Y, X) in the volume.
    radius_vox : float
        Across a hole's or a bridge's axis; of a ball of a speck's size.
    box : tuple of slice
        What it is judged by: the tube around it, with the sheet around a hole and some of both sheets of a bridge.
    region : ndarray of bool
        That tube in the box.
    sides : ndarray of uint8
        In the tube, before: 1 and 2 are the background on both sides of a hole's sheet, or the two sheets of a
        bridge.
    changed : ndarray of bool
        Voxels of the box that the defect changed.
    """

    kind: Kind
    centre: tuple[int, int, int]
    radius_vox: float
    box: tuple[slice, ...]
    region: Mask
    sides: NDArray[np.uint8]
    changed: Mask


@dataclass(frozen=True)
class Planted:
    """A degraded mask, the sheets it comes from and the defects in it; all of shape (Z, Y, X)."""

    sheets: Sheets
    mask: Mask
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class Repaired:
    """What became of the defects.

    Attributes
    ----------
    gone : tuple of bool
        Hole: in its tube no background leads from one side of the sheet to the other. Bridge: in its tube no foreground
        leads from one sheet to the other, and both are still there (half of the voxels of each are within a voxel of
        the result). Speck: none of its voxels is left.
    lost : float
        Share of the honest surface that the result lacks by more than a voxel: foreground voxels of the sheets, more
        than 2 voxels from any defect and more than 8 from the border, without foreground of the result among the 27
        voxels around them.
    """

    gone: tuple[bool, ...]
    lost: float
    defects: tuple[Defect, ...] = field(repr=False)

    def share(self, kind: Kind, radius_vox: tuple[float, float] = (0.0, np.inf)) -> float:
        """Share repaired of one kind with radii in a half-open range; nan without any."""
        low, high = radius_vox
        pairs = zip(self.gone, self.defects, strict=True)
        chosen = [gone for gone, one in pairs if one.kind == kind and low <= one.radius_vox < high]
        return float(np.mean(chosen)) if chosen else float("nan")


class _Line(NamedTuple):
    """A straight line across a sheet: where it runs in the sheet, and the next sheet on it."""

    start: NDArray[np.float64]
    direction: NDArray[np.float64]
    sheet: int
    last: float  # in the sheet from 0 to here
    following: int  # label of the next sheet, 0 for none
    gap: float  # voxels to it


class _Tube(NamedTuple):
    """A piece of a line with what is around it: its box, distances along and from the line, and the tube in the box."""

    box: tuple[slice, ...]
    along: NDArray[np.float64]
    across: NDArray[np.float64]
    region: Mask


def read_sheets(path: Path) -> Sheets:
    """Labels of an NRRD file (raw or gzip), shape (Z, Y, X), uint16."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    kind = {"unsigned char": "u1", "uint8": "u1", "short": "<i2", "uint16": "<u2"}[fields["type"]]
    voxels = np.frombuffer(gzip.decompress(data) if fields["encoding"] == "gzip" else data, kind)
    shape = [int(size) for size in fields["sizes"].split()]
    return np.ascontiguousarray(voxels.reshape(shape, order="F")).astype(np.uint16)


def blurred(mask: Mask, sigma_vox: float = 1.0, noise: float = 0.1, seed: int = 0) -> NDArray[np.uint8]:
    """A probability map of which a threshold of one half gives about the mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
    sigma_vox : float
        Standard deviation of the Gaussian that the mask goes through.
    noise, seed : float, int
        Standard deviation, in units of probability, of noise that is smooth over 1.5 voxels, and its seed.

    Returns
    -------
    ndarray of uint8, shape (Z, Y, X)
        255 is a probability of 1.
    """
    probability = ndimage.gaussian_filter(mask.astype(np.float32), sigma_vox)
    if noise:
        rough = np.random.default_rng(seed).standard_normal(mask.shape, dtype=np.float32)
        smooth = ndimage.gaussian_filter(rough, 1.5)
        probability += noise / smooth.std() * smooth
    return np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)


def plant(sheets: Sheets, recipe: Recipe) -> Planted:
    """Degrade a mask of sheets with noise and with known defects.

    Parameters
    ----------
    sheets : ndarray of uint8, uint16 or uint32, shape (Z, Y, X)
        0 background, other values sheets.
    recipe : Recipe
        The result is the same for the same seed.
    """
    rng = np.random.default_rng(recipe.seed)
    mask = _roughened(sheets != 0, recipe, rng)
    taken = np.ones(sheets.shape, dtype=bool)
    taken[_inner(sheets.shape)] = False
    solid = sheets != 0
    faces = np.argwhere(solid & ~ndimage.binary_erosion(solid, FACES, border_value=1) & ~taken)
    empty = np.argwhere(~ndimage.binary_dilation(mask, ALL, iterations=2) & ~taken)
    low, high = recipe.hole_radius_vox
    wanted: list[tuple[Kind, float]] = [
        *(("bridge", float(rng.uniform(*recipe.bridge_radius_vox))) for _ in range(recipe.bridges)),
        *(("hole", float(np.exp(rng.uniform(np.log(low), np.log(high))))) for _ in range(recipe.holes)),
        *(("speck", float(rng.integers(*recipe.speck_voxels, endpoint=True))) for _ in range(recipe.specks)),
    ]
    defects = []
    for kind, size in wanted:
        places = empty if kind == "speck" else faces
        for number in rng.integers(len(places), size=TRIES if len(places) else 0):
            defect = _attempt(kind, size, places[number], sheets, mask, taken)
            if defect:
                defects.append(defect)
                break
    return Planted(sheets, mask, tuple(defects))


def repaired(planted: Planted, result: NDArray[np.generic]) -> Repaired:
    """What a result of shape (Z, Y, X) made of the defects; its foreground is any non-zero value."""
    mask: Mask = result != 0
    gone = tuple(_is_gone(defect, mask[defect.box]) for defect in planted.defects)
    near_defects = np.zeros(mask.shape, dtype=bool)
    for defect in planted.defects:
        near_defects[defect.box] |= defect.changed
    honest = (planted.sheets != 0) & ~ndimage.binary_dilation(near_defects, ALL, iterations=HONEST_VOX)
    inner = _inner(mask.shape)
    lacking = honest & ~ndimage.binary_dilation(mask, ALL)
    lost = np.count_nonzero(lacking[inner]) / max(np.count_nonzero(honest[inner]), 1)
    return Repaired(gone, lost, planted.defects)


def _inner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(BORDER, n - BORDER) for n in shape)


def _roughened(solid: Mask, recipe: Recipe, rng: np.random.Generator) -> Mask:
    """The mask with ragged faces."""
    faces = ndimage.binary_dilation(solid, FACES) ^ ndimage.binary_erosion(solid, FACES, border_value=1)
    flips = faces & (rng.random(solid.shape, dtype=np.float32) < recipe.flipped)
    rough: Mask = solid ^ flips
    if recipe.smooth_vox:
        rough = ndimage.gaussian_filter(rough.astype(np.float32), recipe.smooth_vox) >= 0.5
    return rough


def _attempt(
    kind: Kind, size: float, place: NDArray[np.intp], sheets: Sheets, mask: Mask, taken: Mask
) -> Defect | None:
    """Plant one defect at a place, in the mask; nothing changes where it would not be one."""
    if taken[tuple(place)]:
        return None
    make = {"hole": _hole, "bridge": _bridge, "speck": _speck}[kind]
    defect = make(size, place, sheets, mask)
    if defect is None or taken[defect.box].any():
        return None
    before = mask[defect.box].copy()
    after = before ^ defect.changed
    euler = int(euler_number(np.pad(after, 1), connectivity=1)) - int(euler_number(np.pad(before, 1), connectivity=1))
    if euler != (1 if kind == "speck" else -1):
        return None
    clean = sheets[defect.box] != 0
    if kind != "speck" and (_joined(defect, clean) or _joined(defect, before) or not _joined(defect, after)):
        return None
    mask[defect.box] = after
    taken[defect.box] = True
    return defect


def _is_gone(defect: Defect, result: Mask) -> bool:
    if defect.kind == "speck":
        return not (result & defect.changed).any()
    if _joined(defect, result):
        return False
    return defect.kind == "hole" or all(_is_there(defect.sides == side, result) for side in (1, 2))


def _joined(defect: Defect, mask: Mask) -> bool:
    """Whether there is a way from one side to the other inside the region."""
    hole = defect.kind == "hole"
    ways: Mask = (~mask if hole else mask) & defect.region
    pieces, _ = ndimage.label(ways, ALL if hole else FACES)
    one, other = (pieces[ways & (defect.sides == side)] for side in (1, 2))
    return bool(np.intersect1d(one, other).size)


def _is_there(side: Mask, result: Mask) -> bool:
    """Whether half of the voxels of a sheet are within a voxel of the result."""
    near = ndimage.binary_dilation(result, ALL)
    return 2 * np.count_nonzero(near & side) >= np.count_nonzero(side)


def _hole(radius: float, place: NDArray[np.intp], sheets: Sheets, mask: Mask) -> Defect | None:
    """A disc through the whole thickness of the sheet at a voxel of its face."""
    line = _line(place, sheets)
    tube = line and _tube(line, 0.0, line.last, radius, sheets.shape)
    if not line or not tube:
        return None
    here = sheets[tube.box]
    inside = (tube.across <= radius) | _drawn(line, tube)
    changed: Mask = inside & mask[tube.box] & ((here == line.sheet) | (here == 0))
    sides = np.zeros(here.shape, dtype=np.uint8)
    pieces, count = ndimage.label(tube.region & (here == 0), ALL)
    ends = [pieces[inside & where] for where in (tube.along < 0, tube.along > line.last)]
    one, other = (np.bincount(end, minlength=count + 1) for end in ends)
    if not one[1:].any() or not other[1:].any():
        return None
    for side, voxels in enumerate((one, other), start=1):
        sides[pieces == 1 + int(voxels[1:].argmax())] = side
    centre = _index(line.start + line.last / 2 * line.direction)
    return Defect("hole", centre, radius, tube.box, tube.region, sides, changed)


def _bridge(radius: float, place: NDArray[np.intp], sheets: Sheets, mask: Mask) -> Defect | None:
    """A neck from the sheet at a voxel of its face to the next one across a gap."""
    line = _line(place, sheets)
    if line is None or not line.following or not NARROW_VOX <= line.gap <= WIDE_VOX:
        return None
    first, last = line.last, line.last + line.gap
    tube = _tube(line, first, last, radius, sheets.shape)
    if not tube:
        return None
    here = sheets[tube.box]
    reach = (tube.across <= radius) & (tube.along > first - 1) & (tube.along < last + 1)
    changed: Mask = reach & ~mask[tube.box] & (here == 0)
    sides = np.where(here == line.sheet, 1, np.where(here == line.following, 2, 0)).astype(np.uint8)
    sides[~tube.region] = 0
    centre = _index(line.start + (first + last) / 2 * line.direction)
    return Defect("bridge", centre, radius, tube.box, tube.region, sides, changed)


def _speck(voxels: float, place: NDArray[np.intp], sheets: Sheets, mask: Mask) -> Defect | None:
    """A ragged clump of voxels that touches nothing."""
    radius = (0.75 * voxels / np.pi) ** (1 / 3)
    reach = int(np.ceil(radius)) + 2
    box = tuple(slice(int(c) - reach, int(c) + reach + 1) for c in place)
    distance = np.sqrt(sum(axis**2 for axis in np.ogrid[tuple(slice(-reach, reach + 1) for _ in range(3))]))
    ragged = np.random.default_rng(place.tolist()).uniform(0, 0.8, distance.shape)
    nearest = np.argsort(np.where(distance > 0, distance + ragged, 0), axis=None)[: int(voxels)]
    changed = np.zeros(distance.shape, dtype=bool)
    changed.ravel()[nearest] = True
    if mask[box].shape != changed.shape or (mask[box] & ndimage.binary_dilation(changed, ALL)).any():
        return None
    empty = np.zeros(changed.shape, dtype=np.uint8)
    return Defect("speck", _index(place), radius, box, changed, empty, changed)


def _index(place: NDArray[np.generic]) -> tuple[int, int, int]:
    z, y, x = (round(float(c)) for c in place)
    return z, y, x


def _line(place: NDArray[np.intp], sheets: Sheets) -> _Line | None:
    """The line from a voxel of a sheet's face through the sheet, along its normal, and on to the next sheet."""
    sheet = int(sheets[tuple(place)])
    start = place.astype(np.float64)
    normal = _normal(place, sheets)
    steps = np.arange(0, LONGEST_VOX, 0.5)
    for direction in (normal, -normal):
        points = np.rint(start + steps[:, None] * direction).astype(int)
        inside = ((points >= 0) & (points < sheets.shape)).all(axis=1)
        values = sheets[tuple(points[inside].T)]
        behind = np.rint(start - 1.5 * direction).astype(int)
        if len(values) < 4 or sheets[tuple(np.clip(behind, 0, np.array(sheets.shape) - 1))] != 0:
            continue
        left = np.flatnonzero(values != sheet)
        if not len(left) or values[left[0]] != 0:
            continue
        last = steps[left[0] - 1]
        others = np.flatnonzero(values[left[0] :])
        following = int(values[left[0] + others[0]]) if len(others) else 0
        gap = float(others[0]) / 2 if len(others) else 0.0
        return _Line(start, direction, sheet, float(last), following if following != sheet else 0, gap)
    return None


def _normal(place: NDArray[np.intp], sheets: Sheets) -> NDArray[np.float64]:
    """Unit normal of a sheet at a voxel of its face: the direction in which the gradient around it varies most."""
    window = tuple(slice(max(int(c) - NORMAL_VOX, 0), int(c) + NORMAL_VOX + 1) for c in place)
    here = (sheets[window] == sheets[tuple(place)]).astype(np.float32)
    gradient = np.stack(np.gradient(ndimage.gaussian_filter(here, 1.5))).reshape(3, -1)
    _, vectors = np.linalg.eigh((gradient @ gradient.T).astype(np.float64))
    return np.asarray(vectors[:, -1])


def _tube(line: _Line, first: float, last: float, radius: float, shape: tuple[int, ...]) -> _Tube | None:
    """What is around a piece of a line; None where it leaves the volume."""
    ends = line.start + np.array([[first - AROUND_VOX], [last + AROUND_VOX]]) * line.direction
    reach = radius + AROUND_VOX
    aside = reach * np.sqrt(1 - np.minimum(line.direction**2, 1))  # a disc across the line reaches this far
    low, high = np.floor(ends.min(axis=0) - aside).astype(int), np.ceil(ends.max(axis=0) + aside).astype(int) + 1
    if (low < 0).any() or (high > shape).any():
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    offset = np.moveaxis(np.indices(high - low), 0, -1) + low - line.start
    along = offset @ line.direction
    across = np.sqrt(np.maximum((offset**2).sum(axis=-1) - along**2, 0))
    region = (across <= reach) & (along >= first - AROUND_VOX) & (along <= last + AROUND_VOX)
    return _Tube(box, along, across, region)


def _drawn(line: _Line, tube: _Tube) -> Mask:
    """Voxels of a box that the line runs through, so that the thinnest tube has no gap."""
    steps = np.arange(-AROUND_VOX, LONGEST_VOX, 0.5)
    corner = [axis.start for axis in tube.box]
    points = np.rint(line.start + steps[:, None] * line.direction).astype(int) - corner
    drawn = np.zeros(tube.along.shape, dtype=bool)
    drawn[tuple(points[((points >= 0) & (points < drawn.shape)).all(axis=1)].T)] = True
    return drawn
