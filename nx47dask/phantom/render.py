"""Image of a synthetic scroll: grey values and labels of any box, from global coordinates and a seed alone.

Every random field is a hash of integer lattice coordinates, smoothed by interpolation (value noise), so a box needs
no other box. Floats see only ``+ - * / sqrt floor`` and comparisons. IEEE 754 rounds these correctly, whatever the
length of an array, so a box equals the crop of the whole volume bit for bit.

A *turn* counts windings along the sheet and is continuous on it; neighbouring windings differ by a turn of 1. The
*cell* of a winding is the space up to the next winding. It holds the sheet, and the rest of it is air.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index
from nx47dask.phantom.noise import (
    field_key,
    hash_grid,
    lattice_noise,
    mix_bits,
    signed,
    smoothstep,
    stretched_noise,
)

__all__ = ["LABEL_IGNORE", "LABEL_SURFACE", "Phantom", "render"]

LABEL_SURFACE = 1
LABEL_IGNORE = 2

Float = NDArray[np.floating[Any]]  # float32, except arc lengths, which may reach millions of voxels
Hash = NDArray[np.uint32]

_BLUR_PASSES = 2
_FARTHEST_INNER_VOX = 12.0  # distances from the wall of a cell are linear estimates, good only when short
_GRADIENT_RADIUS = 1
_SHEET_FIELDS = (("lie", (60, 44, 44)), ("lie2", (60, 44, 44)), ("bulk", (34, 28, 28)), ("bulk2", (34, 28, 28)))
_SPECK_CELL_VOX = 24
_SPECK_REACH_VOX = 4
_TOUCHING_VOX = 2.0
# name, lattice pitch (Z, Y, X) and height in voxels of the waves that bend the windings
_WAVES = (("fold", (170, 110, 110), 15.0), ("wave", (90, 52, 52), 4.4), ("ripple", (40, 24, 24), 0.9))
# atan(t) / (2 pi) on 0..1 in odd powers of t, after a minimax fit; at most 4e-7 turns off
_ATAN_TURNS = (0.15915132, -0.05293867, 0.03080340, -0.01853087, 0.00838004, -0.00186549)


@dataclass(frozen=True)
class Phantom:
    """A synthetic papyrus scroll around an umbilicus that runs roughly along Z.

    Parameters
    ----------
    shape : tuple of int
        Shape of the volume in voxels (Z, Y, X).
    seed : int
        Seed of everything random.
    spacing_vox : float
        Mean distance between neighbouring windings.
    thickness_vox, thickness_spread_vox : float
        Mean thickness of a sheet and its standard deviation.
    hollow_turns : float
        Number of empty turns around the umbilicus.
    umbilicus_distance_vox : float
        Distance of the umbilicus from the middle axis of the volume, without its wandering.
    wander_vox : float
        Standard deviation of the umbilicus' wandering along Z.
    waviness : float
        Strength of the waves that make windings uneven; 0 gives a plain spiral.
    delamination_vox : float
        Width of the gap where a sheet splits, per standard deviation beyond the threshold.
    webbing : float
        Share of a narrow gap that webs fill, from 0 to 1.
    surface_vox : float
        Thickness of the labelled recto surface.
    border_vox : int
        Width of the border labelled "ignore"; at most a tenth of the axis.
    air_grey, papyrus_grey : float
        Grey values of wide gaps and of the interior of a sheet.
    fibre_grey, noise_grey : float
        Strength of the fibre texture, and standard deviation of the scanner's noise.
    speck_share : float
        Share of cells of 24^3 voxels that hold a dense speck of dust.

    Examples
    --------
    A phantom is a description; its voxels are computed where they are needed, and a box equals the crop of the whole:

    >>> import numpy as np
    >>> from nx47dask.geometry import Box
    >>> from nx47dask.phantom.render import render
    >>> phantom = Phantom((24, 96, 96), seed=5, border_vox=0)
    >>> image, label = render(phantom, Box.of_shape(phantom.shape))
    >>> part = Box((8, 30, 40), (16, 62, 72))
    >>> np.array_equal(render(phantom, part)[0], image[part.slices])
    True

    Labels are 0 background, 1 recto surface and 2 ignore (unclear places):

    >>> np.unique(label)
    array([0, 1, 2], dtype=uint8)

    Windings closer together give more surface:

    >>> _, dense = render(Phantom((24, 96, 96), seed=5, border_vox=0, spacing_vox=14), Box.of_shape(phantom.shape))
    >>> bool((dense == 1).sum() > (label == 1).sum())
    True
    """

    shape: Index
    seed: int = 0
    spacing_vox: float = 20.0
    thickness_vox: float = 10.0
    thickness_spread_vox: float = 1.6
    hollow_turns: float = 1.3
    umbilicus_distance_vox: float = 90.0
    wander_vox: float = 18.0
    waviness: float = 1.0
    delamination_vox: float = 3.0
    webbing: float = 0.25
    surface_vox: float = 3.0
    border_vox: int = 8
    air_grey: float = 118.0
    papyrus_grey: float = 150.0
    fibre_grey: float = 52.0
    noise_grey: float = 5.0
    speck_share: float = 0.06


class _Scroll(NamedTuple):
    """Places of the voxels of a box in the rolled sheet."""

    turn: Float  # number of windings along the sheet from the umbilicus
    winding: Float  # integer number of the winding whose cell holds the voxel
    angle_turns: Float  # 0 to 1 around the umbilicus
    cell_vox: Float  # local distance between two windings
    place_vox: Float  # distance from the inner wall of the cell


class _Sheet(NamedTuple):
    """A winding in its cell: air, sheet, air."""

    inner_vox: Float  # air between the inner wall of the cell and the recto
    thickness_vox: Float  # recto to verso, with the gap of a split
    outer_vox: Float  # air between the verso and the outer wall
    split_vox: Float  # width of the gap inside the sheet
    presence: Float  # 0 in the hollow around the umbilicus, 1 beyond


def render(phantom: Phantom, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render the grey values and labels of a box; memory is bounded by the box, about 300 bytes per voxel.

    Parameters
    ----------
    phantom : Phantom
        The scroll to render.
    box : Box
        Global voxels. It may reach outside the volume: the scroll continues there, with the label "ignore".

    Returns
    -------
    image, label : ndarray of uint8
        Both of the box's shape. Labels are 0 background, 1 recto surface (the concave side), 2 ignore.
    """
    if box.size == 0:
        return np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.uint8)
    blurred = (_BLUR_PASSES,) * 3
    wide = box.expand(blurred)
    scroll = _scroll(phantom, wide)
    fields = [_noise(phantom, name, wide, pitch) for name, pitch in _SHEET_FIELDS]
    before, sheet, after = (_sheet(phantom, scroll, scroll.turn + step, fields) for step in (-1, 0, 1))
    depth_vox = scroll.place_vox - sheet.inner_vox
    gap_vox = sheet.inner_vox + before.outer_vox
    web = _webs(phantom, wide, np.where(depth_vox < 0, gap_vox, sheet.outer_vox + after.inner_vox))

    from_inside = np.where(depth_vox < 0, scroll.place_vox + before.outer_vox, depth_vox - sheet.thickness_vox)
    to_outside = np.where(depth_vox < 0, -depth_vox, scroll.cell_vox - scroll.place_vox + after.inner_vox)
    air = _air(phantom, wide, from_inside, to_outside, sheet.presence)
    share = np.maximum(_share_of_sheet(phantom, wide, depth_vox, sheet), web)
    grey = air + share * (_papyrus(phantom, wide, scroll, depth_vox, sheet) - air)
    grey += 75 * _specks(phantom, wide)

    inside = tuple(slice(r, -r) for r in blurred)
    label = _label(phantom, box, *(a[inside] for a in (depth_vox, sheet.thickness_vox, gap_vox, web)))
    return _scan(phantom, wide, grey), label


def _noise(phantom: Phantom, name: str, box: Box, pitch: int | Index) -> Float:
    return lattice_noise(field_key(phantom.seed, name), box, (pitch,) * 3 if isinstance(pitch, int) else pitch)


def _clip(values: Float) -> Float:
    return np.clip(values, 0, 1)


def _near(distance_vox: Float, width_vox: float) -> Float:
    """Return a bell-shaped weight: 1 at distance 0, 0.5 at a distance of one width."""
    scaled = distance_vox * (1 / width_vox)
    return 1 / (1 + scaled * scaled)


def _wave(turns: Float) -> Float:
    """Approximate a cosine with a period of one turn by cubic pieces."""
    t = turns - np.floor(turns)
    t *= 2
    t -= 1
    wave = smoothstep(np.abs(t, out=t))
    wave *= 2
    wave -= 1
    return wave


def _angle_turns(y: Float, x: Float) -> Float:
    """Compute atan2(y, x) in turns, 0 to 1."""
    ay, ax = np.abs(y), np.abs(x)
    t = np.minimum(ay, ax) / np.maximum(np.maximum(ay, ax), 1e-6)
    square = t * t
    angle = functools.reduce(lambda total, c: total * square + c, _ATAN_TURNS[-2::-1], square * 0 + _ATAN_TURNS[-1]) * t
    angle = np.where(ay > ax, 0.25 - angle, angle)
    angle = np.where(x < 0, 0.5 - angle, angle)
    angle = np.where(y < 0, 1 - angle, angle)
    return np.where(angle >= 1, 0, angle).astype(np.float32)


def _scroll(phantom: Phantom, box: Box) -> _Scroll:
    wide = box.expand((_GRADIENT_RADIUS,) * 3)
    y, x = _from_umbilicus(phantom, wide)
    radius = np.sqrt(y * y + x * x)
    for name, pitch, height_vox in _WAVES:
        radius += phantom.waviness * height_vox * _noise(phantom, name, wide, pitch)
    core = (slice(1, -1),) * 3
    slope = np.sqrt(functools.reduce(np.add, (np.square(_central(radius, axis)) for axis in range(3))))
    angle = _angle_turns(y[core], x[core])
    phase = radius[core] * (1 / phantom.spacing_vox) - angle
    winding = np.floor(phase)
    cell_vox = phantom.spacing_vox / np.clip(slope, 0.4, 2)
    return _Scroll(winding + angle, winding, angle, cell_vox, (phase - winding) * cell_vox)


def _from_umbilicus(phantom: Phantom, box: Box) -> tuple[Float, Float]:
    """Return the offsets (y, x) of a box's voxels from the umbilicus, broadcast to the box."""
    line = Box((box.start[0], 0, 0), (box.stop[0], 1, 1))
    sides = _wave(field_key(phantom.seed, "heading") / 2.0**32 + np.array([0.25, 0.0]))
    offsets = []
    for axis, (name, side) in enumerate(zip(("umbilicus y", "umbilicus x"), sides, strict=True), start=1):
        middle = phantom.shape[axis] / 2 + side * phantom.umbilicus_distance_vox
        wander = sum(_noise(phantom, name, line, pitch) * share for pitch, share in ((400, 1.0), (90, 0.25)))
        along = np.arange(box.start[axis], box.stop[axis], dtype=np.float32) - np.float32(middle)
        offsets.append(along.reshape((1, -1, 1) if axis == 1 else (1, 1, -1)) - phantom.wander_vox * wander)
    y, x = np.broadcast_arrays(*offsets)
    return y, x


def _central(values: Float, axis: int) -> Float:
    """Take the central difference along an axis; the result is one voxel smaller on every side."""
    low, high = ([slice(1, -1)] * 3 for _ in range(2))
    low[axis], high[axis] = slice(None, -2), slice(2, None)
    return (values[tuple(high)] - values[tuple(low)]) * 0.5


def _sheet(phantom: Phantom, scroll: _Scroll, turn: Float, fields: list[Float]) -> _Sheet:
    """Return the sheet at a turn; mixing two fields by the turn makes neighbours differ and keeps a sheet smooth."""
    lie, lie2, bulk, bulk2 = fields

    def mixed(a: Float, b: Float, per_turn: float) -> Float:
        phase = turn * per_turn
        return a * _wave(phase) + b * _wave(phase + 0.25)

    split = phantom.delamination_vox * np.clip(mixed(bulk2, bulk, 0.29) - 0.8, 0, 2)
    thickness = phantom.thickness_vox + phantom.thickness_spread_vox * 1.4 * mixed(bulk, bulk2, 0.43) + split
    presence = _clip((turn - phantom.hollow_turns) * 8)
    thickness = np.maximum(thickness, 4) * presence
    air = np.maximum(scroll.cell_vox - thickness, 0)
    inner = air * smoothstep(_clip(0.5 + 0.42 * mixed(lie, lie2, 0.38)))
    inner = inner / np.sqrt(1 + np.square(inner * (1 / _FARTHEST_INNER_VOX)))
    return _Sheet(inner, np.minimum(thickness, scroll.cell_vox), air - inner, split * presence, presence)


def _share_of_sheet(phantom: Phantom, box: Box, depth_vox: Float, sheet: _Sheet) -> Float:
    """Return the share of each voxel that the sheet fills: less at its faces, splits, pores and touching wraps."""
    rough = 0.5 * _noise(phantom, "rough", box, (8, 5, 5))
    share = np.minimum(_clip(depth_vox + 0.5 + rough), _clip(sheet.thickness_vox - depth_vox + 0.5 + rough))
    off_middle = np.abs(depth_vox - 0.5 * sheet.thickness_vox)
    share *= sheet.presence
    share *= 1 - _clip(0.5 * sheet.split_vox - off_middle + 0.5) * _clip(sheet.split_vox)
    share *= 1 - 0.65 * _clip(_noise(phantom, "pores", box, (4, 3, 3)) * 1.6 - 2.6)
    seam = _clip(0.7 + 0.5 * _noise(phantom, "seam", box, 14))
    return share * (1 - 0.5 * seam * _clip(1.2 - np.abs(depth_vox)))


def _webs(phantom: Phantom, box: Box, gap_vox: Float) -> Float:
    """Return the share of the air between two wraps that torn fibres bridge; only narrow gaps have such webs."""
    threshold = 1.6 - 2 * phantom.webbing
    return 0.8 * _clip(2 * (_noise(phantom, "webs", box, (9, 6, 6)) - threshold)) * _clip((7 - gap_vox) * 0.4)


def _papyrus(phantom: Phantom, box: Box, scroll: _Scroll, depth_vox: Float, sheet: _Sheet) -> Float:
    """Return the grey values of papyrus: fibres along the sheet (recto) or Z (verso), bright faces, grain."""
    turns_squared = scroll.winding.astype(np.float64) * (scroll.winding + 2 * scroll.angle_turns)
    turns_squared += scroll.angle_turns * scroll.angle_turns
    arc_vox = np.pi * phantom.spacing_vox * turns_squared
    z_vox = np.arange(box.start[0], box.stop[0], dtype=np.float64)[:, None, None]
    recto = depth_vox < 0.5 * sheet.thickness_vox
    wobble = 1.5 * _noise(phantom, "wobble", box, 20)
    across = np.where(recto, z_vox, arc_vox) + wobble
    along = np.where(recto, arc_vox, z_vox)
    fibres = stretched_noise(field_key(phantom.seed, "fibres"), across / 4.0, along / 34, depth_vox / 2.8)
    fibres -= 0.8 * np.maximum(-0.3 - fibres, 0)  # the hollows between fibres are darker than fibres are bright
    grain = _noise(phantom, "grain", box, (3, 2, 2))
    patches = _noise(phantom, "patches", box, 22)
    faces = _near(depth_vox - 1, 2) + 0.8 * _near(sheet.thickness_vox - depth_vox - 1, 2)
    grains = 9 * grain + 22 * np.clip(grain - 1, 0, 9)
    grey: Float = phantom.papyrus_grey + phantom.fibre_grey * fibres + grains + 12 * patches + 36 * faces
    return grey


def _air(phantom: Phantom, box: Box, from_inside_vox: Float, to_outside_vox: Float, presence: Float) -> Float:
    """Return the grey values of air: darker beside a sheet (the fringe of phase contrast), so narrow gaps are dark."""
    fringe = _near(from_inside_vox, 4) + _near(to_outside_vox, 4)
    fringe *= 0.2 + 0.8 * presence
    return phantom.air_grey - 44 * fringe + 4 * _noise(phantom, "haze", box, 5)


def _specks(phantom: Phantom, box: Box) -> Float:
    """Return specks of dense dust, 0 to 1: at most one soft ball per cell of a coarse lattice."""
    specks = np.zeros(box.shape, np.float32)
    reach = box.expand((_SPECK_REACH_VOX,) * 3)
    cells = [
        np.arange(a // _SPECK_CELL_VOX, (b - 1) // _SPECK_CELL_VOX + 1)
        for a, b in zip(reach.start, reach.stop, strict=True)
    ]
    hashes = hash_grid(field_key(phantom.seed, "specks"), cells)
    for where in np.argwhere(hashes < phantom.speck_share * 2.0**32):
        draws = mix_bits(hashes[tuple(where)] + np.arange(1, 5, dtype=np.uint32)) / 2.0**32
        centre = [(int(c[i]) + float(d)) * _SPECK_CELL_VOX for c, i, d in zip(cells, where, draws, strict=False)]
        middle = (int(centre[0]), int(centre[1]), int(centre[2]))
        ball = Box(middle, middle).expand((_SPECK_REACH_VOX,) * 3).clip(box)
        axes = np.ogrid[ball.slices]
        distance = np.sqrt(functools.reduce(np.add, (np.square(a - c) for a, c in zip(axes, centre, strict=True))))
        here = specks[ball.relative_to(box.start).slices]
        np.maximum(here, _clip(1.2 + 1.6 * draws[3] - distance), out=here, casting="same_kind")
    return specks


def _scan(phantom: Phantom, box: Box, grey: Float) -> NDArray[np.uint8]:
    """Scan grey values: add blur, noise that is correlated within a page, and slow drift; crop the blur's margin."""
    coordinates = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    for _ in range(_BLUR_PASSES):
        grey = _blur(grey, 0)
    coordinates[0] = coordinates[0][_BLUR_PASSES:-_BLUR_PASSES]
    # two binomial passes along Y and X leave 0.273 of the amplitude of white noise, whose own is 0.577
    grey += phantom.noise_grey / (0.273 * 0.577) * signed(hash_grid(field_key(phantom.seed, "noise"), coordinates))
    for axis in _BLUR_PASSES * (1, 2):
        grey = _blur(grey, axis)
    grey += 4 * _noise(phantom, "drift", box.expand((-_BLUR_PASSES,) * 3), 150)
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def _blur(values: Float, axis: int) -> Float:
    """Blur along an axis by 1-2-1; the result is one voxel smaller at both ends."""
    low, mid, high = (
        tuple(s if a == axis else slice(None) for a in range(3))
        for s in itertools.starmap(slice, ((None, -2), (1, -1), (2, None)))
    )
    return (values[low] + values[high]) * 0.25 + values[mid] * 0.5


def _label(
    phantom: Phantom, box: Box, depth_vox: Float, thickness_vox: Float, gap_vox: Float, web: Float
) -> NDArray[np.uint8]:
    label = ((depth_vox >= 0) & (depth_vox < np.minimum(phantom.surface_vox, thickness_vox))).astype(np.uint8)
    unclear = (gap_vox < _TOUCHING_VOX) | (web > 0.3) | (thickness_vox < phantom.surface_vox + 1)
    unclear &= thickness_vox > 0
    label[unclear & (depth_vox > -2) & (depth_vox < phantom.surface_vox + 2)] = LABEL_IGNORE
    for axis, size in enumerate(phantom.shape):
        border = min(phantom.border_vox, size // 10)
        at = np.arange(box.start[axis], box.stop[axis])
        label[(slice(None),) * axis + ((at < border) | (at >= size - border),)] = LABEL_IGNORE
    return label
