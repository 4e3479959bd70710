"""Value noise: random fields of any box from global coordinates and a seed alone.

A field interpolates a hash of integer lattice coordinates. The interpolation only adds, multiplies and compares, so a
box equals the crop of any larger box bit for bit.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nx47dask.geometry import Box, Index

__all__ = ["Float", "field_key", "hash_grid", "lattice_noise", "mix_bits", "signed", "smoothstep", "stretched_noise"]

Float = NDArray[np.floating[Any]]
Hash = NDArray[np.uint32]

_PRIMES_ZYX = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)


def lattice_noise(seed: int, box: Box, pitch_zyx: Index) -> Float:
    """Compute smooth value noise of a box: hashed lattice nodes under a cubic B-spline.

    Parameters
    ----------
    seed : int
        Key of the field (`field_key`).
    box : Box
        Global voxels, not empty.
    pitch_zyx : tuple of int
        Distance between neighbouring nodes per axis, in voxels; features are about twice as wide.

    Returns
    -------
    ndarray of float32
        Has the box's shape, mean 0, standard deviation about 1, and absolute values up to 5.3.
    """
    coordinates = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    nodes = [np.arange(c[0] // p - 1, c[-1] // p + 3) for c, p in zip(coordinates, pitch_zyx, strict=True)]
    values = signed(hash_grid(seed, nodes)) * 5.25
    for axis in (2, 1, 0):  # X first, while there are few nodes; Z last, where whole pages are added
        values = _spline(values, axis, coordinates[axis], pitch_zyx[axis])
    return values


def stretched_noise(key: int, across: Float, along: Float, deep: Float) -> Float:
    """Compute value noise from -1 to 1 at scattered points, in units of its lattice (trilinear, smoothed)."""
    table = signed(mix_bits(np.arange(4096, dtype=np.uint32) + np.uint32(key)))
    corners: list[tuple[Hash, Hash]] = []
    weights: list[Float] = []
    for coordinate, prime in zip((across, along, deep), _PRIMES_ZYX, strict=True):
        node = np.floor(coordinate)
        t = (coordinate - node).astype(np.float32)
        low = node.astype(np.int32).view(np.uint32) * np.uint32(prime)
        corners.append((low, low + np.uint32(prime)))
        weights.append(smoothstep(t))
    a, b, c = weights

    def row(ka: int, kb: int) -> Float:
        base = corners[0][ka] + corners[1][kb]
        near, far = (np.take(table, (base ^ corners[2][k]) * np.uint32(0x7FEB352D) >> 20) for k in (0, 1))
        return near + c * (far - near)

    near, far = (row(k, 0) + b * (row(k, 1) - row(k, 0)) for k in (0, 1))
    return near + a * (far - near)


def field_key(seed: int, name: str) -> int:
    """Hash a seed and a field's name to a 32-bit key (FNV-1a)."""
    key = 0x811C9DC5
    for byte in f"{name}:{seed}".encode():
        key = (key ^ byte) * 0x01000193 & 0xFFFFFFFF
    return key


def hash_grid(seed: int, coordinates: list[NDArray[np.int64]]) -> Hash:
    """Draw random 32-bit integers at the nodes of a grid of global coordinates (Z, Y, X)."""
    z, y, x = (
        mix_bits((c * prime + seed).astype(np.uint32)) for c, prime in zip(coordinates, _PRIMES_ZYX, strict=True)
    )
    return mix_bits((z[:, None, None] + y[:, None]) ^ x)


def mix_bits(values: Hash) -> Hash:
    """Scramble 32-bit integers in place (the finaliser "lowbias32" by C. Wellons, 2018)."""
    values ^= values >> 16
    values *= np.uint32(0x7FEB352D)
    values ^= values >> 15
    values *= np.uint32(0x846CA68B)
    values ^= values >> 16
    return values


def signed(values: Hash) -> Float:
    """Turn random 32-bit integers into uniform floats from -1 to 1."""
    return values.view(np.int32).astype(np.float32) * np.float32(2.0**-31)


def _spline(values: Float, axis: int, coordinate: NDArray[np.int64], pitch: int) -> Float:
    node = coordinate // pitch
    t = ((coordinate - node * pitch) / pitch).astype(np.float32)
    u = 1 - t
    taps = (u * u * u / 6, 2 / 3 - t * t * (1 - t / 2), 2 / 3 - u * u * (1 - u / 2), t * t * t / 6)
    along = [1, 1, 1]
    along[axis] = -1
    terms = (np.take(values, node - node[0] + k, axis) * tap.reshape(along) for k, tap in enumerate(taps))
    return functools.reduce(np.add, terms)


def smoothstep(t: Float) -> Float:
    """Compute ``t² (3 - 2 t)``."""
    result = t * -2  # in place from here, because this function takes much of the time
    result += 3
    result *= t
    result *= t
    return result
