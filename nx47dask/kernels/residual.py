"""The NX47 residual, which is a volume minus its Gaussian blur, and the per-slice band rule of V61.1.

All functions are exact under cropping: a voxel's result depends on the voxels within the stated radius, and the order
of operations does not depend on the block. The edge of a block counts as an edge of the volume.
Source of the algorithm: NX47 V61.1 of the Lumvorax project.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "TRUNCATE",
    "band_mask",
    "gaussian_radius_vox",
    "normalise",
    "projected_slices",
    "projection",
    "residual",
    "slice_percentiles",
    "threshold_pair",
]

TRUNCATE = 4.0
_GROUP_SLICES = 8
_TINY = 1e-6


def gaussian_radius_vox(sigma_vox: float) -> int:
    """Return the radius in voxels of scipy's Gaussian kernel at ``truncate=4``."""
    return int(TRUNCATE * sigma_vox + 0.5)


def normalise(image: NDArray[np.generic], minimum: float, scale: float) -> NDArray[np.float32]:
    """Map raw integers to ``(v - minimum) / scale``, in float32 throughout.

    Parameters
    ----------
    image : ndarray of uint8 or uint16
        Raw voxels, any shape.
    minimum, scale : float
        Smallest grey value and grey range of the whole volume, in raw units.
    """
    volume = image.astype(np.float32)
    volume -= np.float32(minimum)
    volume /= np.float32(scale)
    return volume


def residual(volume: NDArray[np.float32], sigma_vox: float) -> NDArray[np.float32]:
    """Compute ``volume - gaussian(volume, sigma)``, with reflection at the edges.

    Parameters
    ----------
    volume : ndarray of float32, (Z, Y, X)
    sigma_vox : float
        Standard deviation of the Gaussian in voxels. The radius is `gaussian_radius_vox` on each axis.
    """
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(volume, sigma_vox, mode="reflect", truncate=TRUNCATE)
    return np.subtract(volume, smooth, out=smooth)


def projection(resid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average each slice with its neighbours z-1 and z+1 where they exist (float32, radius 1 in z).

    Parameters
    ----------
    resid : ndarray of float32, (Z, Y, X)
    """
    depth = len(resid)
    result = np.empty_like(resid)
    for z in range(depth):
        result[z] = _mean_slices(resid[max(z - 1, 0) : z + 2])
    return result


def projected_slices(
    image: NDArray[np.generic], first_z: int, n: int, minimum: float, scale: float, sigma_vox: float
) -> Iterator[NDArray[np.float32]]:
    """Yield ``projection(residual(...))`` slice by slice, holding a few slices in float32 at a time.

    Parameters
    ----------
    image : ndarray of uint8 or uint16, (Z, Y, X)
        Whole slices with a z-context of ``gaussian_radius_vox(sigma) + 1``, clipped to the volume.
    first_z, n : int
        First slice and number of slices to yield; slices count from the first of ``image``.
    minimum, scale, sigma_vox : float
        As in `normalise` and `residual`.

    Yields
    ------
    ndarray of float32, (Y, X)
        The same bits as the slices of `residual` and `projection` of the whole volume.
    """
    low, high = max(first_z - 1, 0), min(first_z + n + 1, len(image))
    window: deque[NDArray[np.float32]] = deque(maxlen=3)
    for z, resid in enumerate(_residual_slices(image, low, high, minimum, scale, sigma_vox), start=low):
        window.append(resid)
        if z > first_z:
            yield _mean_slices(np.stack(window))
    if high == first_z + n:  # the volume ends here: its last slice has no slice after it
        yield _mean_slices(np.stack([*window][-2:]))


def slice_percentiles(
    proj: NDArray[np.float32], base: float, gain: float, ceiling: float, gap: float, floor: float
) -> tuple[float, float]:
    """Compute the two adaptive percentiles of a slice, in percent: ``(p_hi, p_lo)``.

    ``p_hi = clip(base + gain (p95 - p90) / (std + 1e-6), base, ceiling)``; ``p_lo = max(p_hi - gap, floor)``.

    Parameters
    ----------
    proj : ndarray of float32, (Y, X)
        A whole slice of the projected residual.
    """
    p90, p95 = np.percentile(proj, 90), np.percentile(proj, 95)
    p_hi = float(np.clip(base + gain * (p95 - p90) / (proj.std() + _TINY), base, ceiling))  # float32 up to here
    return p_hi, max(p_hi - gap, floor)


def threshold_pair(proj: NDArray[np.float32], p_hi: float, p_lo: float) -> tuple[np.float32, np.float32]:
    """Compute the values ``(q_hi, q_lo)`` of a slice at two percentiles."""
    return np.percentile(proj, p_hi), np.percentile(proj, p_lo)


def band_mask(proj: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Mark the foreground of V61.1: above q_hi, or in the lower half of the band between q_lo and q_hi.

    Parameters
    ----------
    proj : ndarray of float32, (Z, Y, X)
    thresholds : ndarray of float32, (Z, 2)
        ``(q_hi, q_lo)`` of each slice.

    Returns
    -------
    ndarray of uint8 {0, 1}, (Z, Y, X)
    """
    q_hi, q_lo = (thresholds[:, i, None, None] for i in (0, 1))
    weight = (proj - q_lo) / (q_hi - q_lo + np.float32(_TINY))
    lower_half = (proj > q_lo) & (weight < 0.5)
    return (lower_half | (proj > q_hi)).view(np.uint8)


def _mean_slices(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = slices.mean(axis=0, dtype=np.float32)
    return mean


def _residual_slices(
    image: NDArray[np.generic], low: int, high: int, minimum: float, scale: float, sigma_vox: float
) -> Iterator[NDArray[np.float32]]:
    """Yield the residual slices ``low`` to ``high``, computed a few at a time with their own context."""
    radius = gaussian_radius_vox(sigma_vox)
    for start in range(low, high, _GROUP_SLICES):
        stop = min(start + _GROUP_SLICES, high)
        context = max(start - radius, 0)
        part = normalise(image[context : stop + radius], minimum, scale)
        yield from residual(part, sigma_vox)[start - context : stop - context]
