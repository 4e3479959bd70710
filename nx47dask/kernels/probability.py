"""Kernels on stored probability (uint8: 255 is 1; uint16: 65535 is 1): smoothing, levels, support, coherence."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nx47dask.geometry import Index
from nx47dask.kernels.morphology import closing, dilate
from nx47dask.kernels.residual import TRUNCATE, gaussian_radius_vox

__all__ = [
    "binarise",
    "gaussian_radius",
    "level_of",
    "slice_histograms",
    "slice_support",
    "slice_vote",
    "smooth",
    "supported",
]


def gaussian_radius(sigma_zyx_vox: tuple[float, float, float]) -> Index:
    """Return the radius of :func:`smooth`: four standard deviations."""
    z, y, x = map(gaussian_radius_vox, sigma_zyx_vox)
    return z, y, x


def smooth(
    probability: NDArray[np.unsignedinteger], sigma_zyx_vox: tuple[float, float, float]
) -> NDArray[np.unsignedinteger]:
    """Smooth a probability, shape (Z, Y, X), with a Gaussian, and round it to whole levels.

    The volume is reflected at its border. ``scipy.ndimage.gaussian_filter`` sums every output voxel in float64 and in
    a fixed order, so a crop with enough context gives the same bytes as the whole volume.
    """
    blurred = gaussian_filter(probability, sigma_zyx_vox, output=np.float32, mode="reflect", truncate=TRUNCATE)
    rounded: NDArray[np.float32] = np.rint(blurred)
    return rounded.astype(probability.dtype)


def level_of(value: float, dtype: np.dtype[np.unsignedinteger]) -> int:
    """Return the lowest stored probability that reaches a value in (0, 1]."""
    return max(1, math.ceil(value * np.iinfo(dtype).max))


def binarise(probability: NDArray[np.unsignedinteger], levels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Count the levels that every voxel reaches.

    Parameters
    ----------
    probability : ndarray of uint8 or uint16, shape (Z, Y, X)
    levels : ndarray of int, shape (Z or 1, number of levels), values from 1 to 256 or 65536
        Ascending levels, per slice or for all; a voxel reaches a level when its probability is at least the level.

    Returns
    -------
    ndarray of uint8, shape (Z, Y, X)
        0 below the first level, 1 from the first, 2 from the second on.
    """
    state = np.zeros(probability.shape, dtype=np.uint8)
    for level in levels.T:
        # "Above level - 1", because uint8 cannot hold the level 256, which no voxel reaches.
        state += probability > (level - 1).astype(probability.dtype)[:, None, None]
    return state


def slice_histograms(probability: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Count the voxels of every slice at each level, shape (Z, 256 or 65536)."""
    levels = np.iinfo(probability.dtype).max + 1
    return np.stack([np.bincount(plane.ravel(), minlength=levels) for plane in probability])


def supported(image: NDArray[np.unsignedinteger], level: int, radius_vox: int) -> NDArray[np.bool_]:
    """Mark the voxels of a scan that are not empty: those above a grey level, closed with a box over dark specks.

    In published predictions of another program, 43 % of the positives lie where the masked scan is empty.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, shape (Z, Y, X)
    level : int
        Highest grey level that counts as empty (0 in masked scans).
    radius_vox : int
        Radius of the closing; the result is local with twice this radius.
    """
    return closing(image > level, (radius_vox,) * 3)


def slice_support(mask: NDArray[np.bool_], window_vox: int, least: int, reach_vox: int) -> NDArray[np.bool_]:
    """Keep the foreground that at least ``least`` neighbouring slices support.

    A slice within ``window_vox`` supports a voxel when it has foreground within ``reach_vox`` of the same place
    (Chebyshev distance in the slice). Near the first and last slice, ``least`` is at most the number of neighbours.
    """
    near = dilate(mask, (0, reach_vox, reach_vox))
    votes, slices = _neighbour_votes(near, window_vox)
    return mask & (votes >= np.minimum(least, slices)[:, None, None])


def slice_vote(mask: NDArray[np.bool_], window_vox: int) -> NDArray[np.bool_]:
    """Give every voxel the state of the majority of the slices within ``window_vox``, itself included.

    A tie keeps the state.
    """
    votes, slices = _neighbour_votes(mask, window_vox)
    votes += mask
    total = (slices + 1)[:, None, None]
    result: NDArray[np.bool_] = (2 * votes > total) | ((2 * votes == total) & mask)
    return result


def _neighbour_votes(mask: NDArray[np.bool_], window_vox: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Count the foreground slices among the existing neighbours of each slice, and these neighbours."""
    votes = np.zeros(mask.shape, dtype=np.int16)
    slices = np.zeros(mask.shape[0], dtype=np.int16)
    for step in range(1, min(window_vox, mask.shape[0] - 1) + 1):
        votes[step:] += mask[:-step]
        votes[:-step] += mask[step:]
        slices[step:] += 1
        slices[:-step] += 1
    return votes, slices
