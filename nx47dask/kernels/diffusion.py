"""Diffusion of a stored probability by explicit steps: stopped at edges, or along the sheet and not across it.

Exact under cropping, bit for bit: every voxel takes the same scalar +, -, *, / and sqrt in the same order whatever the
array's shape, without a transcendental function or a library's sum. The state is float32 in stored levels through all
steps and is rounded to whole levels once, at the end. A block's edge counts as an edge of the volume, where nothing
flows and the gradient sees a reflection.

Both rules move *fluxes* between pairs of voxels: what one gains the other loses, so the sum stays. All conductivities
are at least 0, and those of a voxel sum to at most 6 (as for six faces of conductivity 1), so that with a time step of
at most 1/6 a new value is an average of old ones: the scheme is stable and never leaves the range of its input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nx47dask.kernels.compiled import compiled

__all__ = ["LARGEST_TIME_STEP", "SHEET_RADIUS", "diffuse_edge", "diffuse_sheet", "sheet_normals"]

LARGEST_TIME_STEP = 1 / 6
SHEET_RADIUS = 5  # of the structure tensor: smoothing 2, central difference 1, smoothing of the products 2

_SLAB_SLICES = 32  # whose six products are held at a time
_SQUARINGS = 5  # the 32nd power of the tensor: its largest eigenvector, where a sheet is to be seen at all
_EDGES = 13
# The 26 neighbours by their 13 directions, as offsets in z, y and x: faces, edges (+ and - per pair of axes), corners.
_DZ = (1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1)
_DY = (0, 1, 0, 1, -1, 0, 0, 1, 1, 1, 1, -1, -1)
_DX = (0, 0, 1, 0, 0, 1, -1, 1, -1, 1, -1, 1, -1)

Volume = NDArray[np.float32]
Row = NDArray[np.float32]


def diffuse_edge(
    probability: NDArray[np.unsignedinteger], steps: int, contrast: float, time_step: float
) -> NDArray[np.unsignedinteger]:
    """Diffusion that stops at edges; radius ``steps``.

    The flux through a face is ``d / (1 + (d / contrast)²)`` for a difference d of the two voxels.

    Parameters
    ----------
    probability : ndarray of uint8 or uint16, shape (Z, Y, X)
    steps : int
        Explicit steps, at least 1.
    contrast : float
        Difference between neighbours that counts as an edge, in units of probability, above 0.
    time_step : float
        Above 0, at most `LARGEST_TIME_STEP`.

    Returns
    -------
    ndarray of the input's type and shape

    Notes
    -----
    Perona and Malik (1990), "Scale-space and edge detection using anisotropic diffusion".
    """
    if _is_constant(probability):
        return probability.copy()
    volume = probability.astype(np.float32)
    per_contrast = np.float32(1 / (contrast * np.iinfo(probability.dtype).max))
    for _ in range(steps):
        _edge_step(volume, per_contrast, np.float32(time_step))
    return _rounded(volume, probability.dtype)


def diffuse_sheet(
    probability: NDArray[np.unsignedinteger], steps: int, contrast: float, time_step: float
) -> NDArray[np.unsignedinteger]:
    """Diffusion along the two directions of the sheet; radius ``steps + SHEET_RADIUS``.

    The tensor is ``D = I - q qᵀ`` with q of `sheet_normals`, taken from the input and kept through all steps. It is
    written as a sum of conductivities along directions to the 26 neighbours,
    ``D = sum w_e e eᵀ`` with ``w_e >= 0``; between two voxels the smaller of their conductivities counts. Directions to
    neighbours cannot write every D: a negative conductivity is set to 0, which leaves some flow across the sheet for
    some tilts, none for normals along an axis or a diagonal.

    Parameters
    ----------
    probability : ndarray of uint8 or uint16, shape (Z, Y, X)
    steps : int
        Explicit steps, at least 1.
    contrast : float
        As for `sheet_normals`, in units of probability per voxel.
    time_step : float
        Above 0, at most `LARGEST_TIME_STEP`.

    Returns
    -------
    ndarray of the input's type and shape

    Notes
    -----
    Weickert (1999), "Coherence-enhancing diffusion filtering"; non-negative directional splitting as in Weickert
    (1998), "Anisotropic diffusion in image processing", section 3.4.
    """
    if _is_constant(probability):
        return probability.copy()
    volume = probability.astype(np.float32)
    normals = sheet_normals(volume, contrast * float(np.iinfo(probability.dtype).max))
    for _ in range(steps):
        _sheet_step(volume, normals, np.float32(time_step))
    return _rounded(volume, probability.dtype)


def sheet_normals(volume: Volume, contrast: float) -> Volume:
    """Normal of the sheet at every voxel, as long as the square root of how clearly there is one; radius 5.

    The structure tensor is the product of the gradient with itself: binomial smoothing [1, 4, 6, 4, 1] / 16 along each
    axis (a standard deviation of 1 voxel), central differences, the same smoothing of the six products. With n the
    eigenvector of its largest eigenvalue m1, and m2, m3 the others, ``|q|² = p = planarity · m1 / (m1 + contrast²)``
    and ``planarity = max(0, m1 - m2 - m3) / (m1 + m2 + m3)``: 1 for a plane, 0 for noise, blobs and rods.

    Parameters
    ----------
    volume : ndarray of float32, shape (Z, Y, X)
    contrast : float
        Gradient of p = planarity / 2, in grey values per voxel, above 0.

    Returns
    -------
    ndarray of float32, shape (3, Z, Y, X)
        ``q = sqrt(p) n``, components in z, y, x; its sign is arbitrary.
    """
    normals = np.empty((3, *volume.shape), dtype=np.float32)
    depth = len(volume)
    for start in range(0, depth, _SLAB_SLICES):
        stop = min(start + _SLAB_SLICES, depth)
        context = max(start - SHEET_RADIUS, 0)
        tensor = _structure_tensor(volume[context : stop + SHEET_RADIUS])
        _write_normals(tensor[:, start - context : stop - context], contrast * contrast, normals[:, start:stop])
    return normals


def _is_constant(probability: NDArray[np.unsignedinteger]) -> bool:
    """Nothing flows where all is equal: an empty block costs nothing."""
    return probability.size == 0 or bool(probability.min() == probability.max())


def _rounded(volume: Volume, dtype: np.dtype[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    whole: Volume = np.rint(volume, out=volume)
    return whole.astype(dtype)


def _structure_tensor(volume: Volume) -> Volume:
    """Smoothed products of the gradient, shape (6, Z, Y, X): zz, yy, xx, zy, zx, yx."""
    smooth = _binomial(volume)
    dz, dy, dx = (_difference(smooth, axis) for axis in range(3))
    pairs = ((dz, dz), (dy, dy), (dx, dx), (dz, dy), (dz, dx), (dy, dx))
    tensor = np.empty((len(pairs), *volume.shape), dtype=np.float32)
    for entry, (one, other) in zip(tensor, pairs, strict=True):
        entry[:] = _binomial(one * other)
    return tensor


@compiled
def _binomial(volume: Volume) -> Volume:
    """[1, 4, 6, 4, 1] / 16 along each axis, reflected at the edges."""
    depth, height, width = volume.shape
    first, second = np.empty_like(volume), np.empty_like(volume)
    for z in range(depth):
        for y in range(height):
            y0, y1, y3, y4 = _around(y, height)
            _weigh_rows(volume[z, y0], volume[z, y1], volume[z, y], volume[z, y3], volume[z, y4], first[z, y])
    for z in range(depth):
        z0, z1, z3, z4 = _around(z, depth)
        for y in range(height):
            _weigh_rows(first[z0, y], first[z1, y], first[z, y], first[z3, y], first[z4, y], second[z, y])
    padded = np.empty(width + 4, np.float32)
    for z in range(depth):
        for y in range(height):
            row = second[z, y]
            padded[2 : width + 2] = row
            padded[1], padded[0] = row[0], row[min(1, width - 1)]
            padded[width + 2], padded[width + 3] = row[width - 1], row[max(width - 2, 0)]
            _weigh_rows(padded[:-4], padded[1:-3], padded[2:-2], padded[3:-1], padded[4:], first[z, y])
    return first


@compiled
def _around(i: int, length: int) -> tuple[int, int, int, int]:
    """Places i-2, i-1, i+1 and i+2, reflected into the axis (an axis of one voxel repeats it)."""
    last = length - 1
    before, after = max(i - 1, 0), min(i + 1, last)
    far_before = i - 2 if i >= 2 else min(1 - i, last)
    far_after = i + 2 if i + 2 <= last else max(2 * last - 1 - i, 0)
    return far_before, before, after, far_after


@compiled
def _weigh_rows(v0: Row, v1: Row, v2: Row, v3: Row, v4: Row, out: Row) -> None:
    four, six, part = np.float32(4.0), np.float32(6.0), np.float32(1 / 16)
    for x in range(len(out)):
        out[x] = ((v0[x] + v4[x]) + four * (v1[x] + v3[x]) + six * v2[x]) * part


def _difference(volume: Volume, axis: int) -> Volume:
    """Central difference, reflected at the edges."""
    padded = np.pad(volume, [(int(i == axis), int(i == axis)) for i in range(3)], mode="symmetric")
    ahead: tuple[slice, ...] = (slice(None),) * axis + (slice(2, None),)
    behind: tuple[slice, ...] = (slice(None),) * axis + (slice(None, -2),)
    result: Volume = (padded[ahead] - padded[behind]) * np.float32(0.5)
    return result


@compiled
def _write_normals(tensor: Volume, contrast_squared: float, normals: Volume) -> None:
    _, depth, height, width = tensor.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                zz, yy, xx = tensor[0, z, y, x], tensor[1, z, y, x], tensor[2, z, y, x]
                zy, zx, yx = tensor[3, z, y, x], tensor[4, z, y, x], tensor[5, z, y, x]
                qz, qy, qx = _normal(zz, yy, xx, zy, zx, yx, contrast_squared)
                normals[0, z, y, x], normals[1, z, y, x], normals[2, z, y, x] = qz, qy, qx


@compiled
def _normal(
    zz: float, yy: float, xx: float, zy: float, zx: float, yx: float, contrast_squared: float
) -> tuple[float, float, float]:
    """Vector of `sheet_normals` from the six entries of a structure tensor."""
    trace = 1.0 * zz + yy + xx
    if trace <= 0.0:
        return 0.0, 0.0, 0.0
    scale = 1.0 / trace
    a, b, c, d, e, f = zz * scale, yy * scale, xx * scale, zy * scale, zx * scale, yx * scale
    # Squared again and again, a matrix turns into the product of its main eigenvector with itself. With a trace of 1
    # the largest eigenvalue is at least 1/3, and its 32nd power far from float64's limits.
    for turn in range(_SQUARINGS):
        a, b, c, d, e, f = (
            a * a + d * d + e * e,
            d * d + b * b + f * f,
            e * e + f * f + c * c,
            d * (a + b) + e * f,
            e * (a + c) + d * f,
            f * (b + c) + d * e,
        )
        # An eigenvalue above the half, without which there is no sheet, has squares that sum to more than 3/8.
        if turn == 0 and a + b + c <= 0.375:
            return 0.0, 0.0, 0.0
    # The column of the largest diagonal entry is the longest.
    if a >= b and a >= c:
        nz, ny, nx = a, d, e
    elif b >= c:
        nz, ny, nx = d, b, f
    else:
        nz, ny, nx = e, f, c
    square = nz * nz + ny * ny + nx * nx
    along_z = nz * (zz * nz + 2.0 * (zy * ny + zx * nx))
    largest = (along_z + ny * (yy * ny + 2.0 * yx * nx) + xx * nx * nx) / square
    clear = (2.0 * largest - trace) / trace
    if clear <= 0.0:
        return 0.0, 0.0, 0.0
    # Rounding may take a perfect plane a trace above 1, where D would no longer be positive.
    share = min(clear, 1.0) * largest / (largest + contrast_squared)
    length = np.sqrt(share / square)
    return nz * length, ny * length, nx * length


@compiled
def _edge_step(volume: Volume, per_contrast: np.float32, time_step: np.float32) -> None:
    """One step in place. A slice is updated once both slices beside it have exchanged with its old values."""
    depth, height, width = volume.shape
    gain = np.zeros((2, height, width), np.float32)
    for z in range(depth):
        now, later = z & 1, (z + 1) & 1
        for y in range(height):
            for x in range(width - 1):
                flux = _flux(volume[z, y, x + 1] - volume[z, y, x], per_contrast)
                gain[now, y, x] += flux
                gain[now, y, x + 1] -= flux
        for y in range(height - 1):
            for x in range(width):
                flux = _flux(volume[z, y + 1, x] - volume[z, y, x], per_contrast)
                gain[now, y, x] += flux
                gain[now, y + 1, x] -= flux
        if z + 1 < depth:
            for y in range(height):
                for x in range(width):
                    flux = _flux(volume[z + 1, y, x] - volume[z, y, x], per_contrast)
                    gain[now, y, x] += flux
                    gain[later, y, x] -= flux
        _spend(volume, z, gain, time_step)


@compiled
def _flux(difference: np.float32, per_contrast: np.float32) -> np.float32:
    ratio = difference * per_contrast
    return difference / (np.float32(1.0) + ratio * ratio)


@compiled
def _spend(volume: Volume, z: int, gain: Volume, time_step: np.float32) -> None:
    """Add what a slice gained, and empty its account."""
    now = z & 1
    for y in range(volume.shape[1]):
        for x in range(volume.shape[2]):
            volume[z, y, x] += time_step * gain[now, y, x]
            gain[now, y, x] = np.float32(0.0)


@compiled
def _sheet_step(volume: Volume, normals: Volume, time_step: np.float32) -> None:
    """One step in place, with the conductivities of two slices at a time."""
    depth, height, width = volume.shape
    gain = np.zeros((2, height, width), np.float32)
    weights = np.zeros((2, _EDGES, height, width), np.float32)
    _weigh_slice(normals, 0, weights)
    for z in range(depth):
        if z + 1 < depth:
            _weigh_slice(normals, z + 1, weights)
        _exchange(volume, z, weights, gain)
        _spend(volume, z, gain, time_step)


@compiled
def _exchange(volume: Volume, z: int, weights: Volume, gain: Volume) -> None:
    """Fluxes between a slice's voxels and their later neighbours, in it and in the next slice; row by row."""
    depth, height, width = volume.shape
    flux = np.empty(width, np.float32)
    for y in range(height):
        for edge in range(_EDGES):
            z1, y1, shift = z + _DZ[edge], y + _DY[edge], _DX[edge]
            if z1 == depth or y1 < 0 or y1 == height:
                continue
            start, count = max(0, -shift), width - abs(shift)
            stop, start1, stop1 = start + count, start + shift, start + shift + count
            now, later = z & 1, z1 & 1
            # Three loops with few arrays each, which a compiler can vectorise.
            weight, weight1 = weights[now, edge, y, start:stop], weights[later, edge, y1, start1:stop1]
            _row_flux(volume[z, y, start:stop], volume[z1, y1, start1:stop1], weight, weight1, flux)
            here, there = gain[now, y, start:stop], gain[later, y1, start1:stop1]
            for x in range(count):
                here[x] += flux[x]
            for x in range(count):
                there[x] -= flux[x]


@compiled
def _row_flux(here: Row, there: Row, weight: Row, weight1: Row, flux: Row) -> None:
    """The smaller conductivity of both ends counts: their mean could sum to more than 6 over a voxel's neighbours."""
    for x in range(len(here)):
        smaller = min(weight[x], weight1[x])
        flux[x] = smaller * (there[x] - here[x])


@compiled
def _weigh_slice(normals: Volume, z: int, weights: Volume) -> None:
    """Conductivities of every voxel of a slice along the 13 directions."""
    _, _, height, width = normals.shape
    own = weights[z & 1]
    own[:] = 0
    for y in range(height):
        for x in range(width):
            qz, qy, qx = normals[0, z, y, x], normals[1, z, y, x], normals[2, z, y, x]
            if qz == 0 and qy == 0 and qx == 0:
                own[0, y, x] = own[1, y, x] = own[2, y, x] = 1
            else:
                _weigh(qz, qy, qx, own[:, y, x])


@compiled
def _weigh(qz: float, qy: float, qx: float, weights: NDArray[np.float32]) -> None:
    """Split ``I - q qᵀ`` into non-negative conductivities.

    An entry off the diagonal is the diagonal direction of its two axes; what it takes from the axes must be left there.
    Where the axis nearest to the normal has too little, the corner direction closest to the sheet takes over from two
    of the diagonals. What is still missing is set to 0. No choice raises the sum above 3, hence 6 for both ways.
    ``weights``, shape (13,), comes filled with 0.
    """
    az, ay, ax = abs(qz), abs(qy), abs(qx)
    zy, zx, yx = az * ay, az * ax, ay * ax
    face_z, face_y, face_x = 1.0 - az * az - zy - zx, 1.0 - ay * ay - zy - yx, 1.0 - ax * ax - zx - yx
    flip_y, flip_x = qz * qy < 0, qz * qx < 0  # whether the normal, with z upwards, points to lower y and x
    corner_y, corner_x = flip_y, flip_x
    if az >= ay and az >= ax:
        corner = max(0.0, min(-face_z, face_y, face_x, zy, zx))
        face_z, face_y, face_x = face_z + corner, face_y - corner, face_x - corner
        zy, zx, yx = zy - corner, zx - corner, yx + corner
        corner_y, corner_x = not flip_y, not flip_x
    elif ay >= ax:
        corner = max(0.0, min(-face_y, face_z, face_x, zy, yx))
        face_z, face_y, face_x = face_z - corner, face_y + corner, face_x - corner
        zy, zx, yx = zy - corner, zx + corner, yx - corner
        corner_y = not flip_y
    else:
        corner = max(0.0, min(-face_x, face_z, face_y, zx, yx))
        face_z, face_y, face_x = face_z - corner, face_y - corner, face_x + corner
        zy, zx, yx = zy + corner, zx - corner, yx - corner
        corner_x = not flip_x
    weights[0], weights[1], weights[2] = max(0.0, face_z), max(0.0, face_y), max(0.0, face_x)
    weights[3 if flip_y else 4] = zy
    weights[5 if flip_x else 6] = zx
    weights[7 if qy * qx < 0 else 8] = yx
    weights[9 + (2 if corner_y else 0) + (1 if corner_x else 0)] = corner
